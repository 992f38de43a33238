import java.net.InetAddress;
import java.util.Hashtable;
import javax.naming.NamingException;
import javax.naming.directory.Attribute;
import javax.naming.directory.InitialDirContext;

// Look [-r] NAME...: what Java makes of names; with -r also of their other
// records, and of the addresses' own names.
class Look {
	public static void main(String[] names) throws Exception {
		boolean records = names.length > 0 && names[0].equals("-r");
		for (String name : names) {
			if (name.equals("-r")) continue;
			StringBuilder text = new StringBuilder();
			try {
				for (InetAddress a : InetAddress.getAllByName(name)) {
					text.append(' ').append(a.getHostAddress());
					if (records) text.append('=').append(a.getCanonicalHostName());
				}
			} catch (java.net.UnknownHostException e) {
				text.append(" unknown");
			}
			System.out.println("java " + name + ":" + text);
			if (records) for (String type : new String[] {"SRV", "TXT", "CNAME", "AAAA"}) System.out.println("java " + type + " of " + name + ": " + record(name, type));
		}
	}

	static String record(String name, String type) {
		Hashtable<String, String> how = new Hashtable<>();
		how.put("java.naming.factory.initial", "com.sun.jndi.dns.DnsContextFactory");
		how.put("java.naming.provider.url", "dns:");
		try {
			Attribute all = new InitialDirContext(how).getAttributes(name, new String[] {type}).get(type);
			String text = all == null ? "none" : all.toString();
			return text.length() > 200 ? text.length() + " characters" : text;
		} catch (NamingException e) {
			return e.getClass().getSimpleName();
		}
	}
}
