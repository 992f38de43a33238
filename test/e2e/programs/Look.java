import java.net.InetAddress;

// Look NAME...: what Java makes of names.
class Look {
	public static void main(String[] names) {
		for (String name : names) {
			StringBuilder text = new StringBuilder();
			try {
				for (InetAddress a : InetAddress.getAllByName(name)) text.append(' ').append(a.getHostAddress());
			} catch (java.net.UnknownHostException e) {
				text.append(" unknown");
			}
			System.out.println("java " + name + ":" + text);
		}
	}
}
