import java.io.*;
import java.net.Socket;

/** Ask HOST PORT: sends a line, prints the answer. */
public class Ask {
    public static void main(String[] args) throws Exception {
        try (Socket s = new Socket(args[0], Integer.parseInt(args[1]))) {
            s.getOutputStream().write("hi\n".getBytes());
            System.out.println(new BufferedReader(new InputStreamReader(s.getInputStream())).readLine());
        }
    }
}
