import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

/** Server PORT: an HTTP server on the JVM. */
public class Server {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            String peer = exchange.getRemoteAddress().getAddress().getHostAddress();
            System.out.println("got " + exchange.getRequestURI() + " from " + peer);
            byte[] body = ("local java " + exchange.getRequestURI() + " peer=" + peer + "\n").getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        System.out.println("listening");
    }
}
