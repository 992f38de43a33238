// lookup NAME...: what the C library makes of names, in its order, of the
// addresses' own names, and of their other records. lookup connect NAME PORT: what a server there says. It
// is built with each C library.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void show(const char *what, const char *name, int flags)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags}, *all;
	int err = getaddrinfo(name, "443", &hints, &all);
	printf("%s %s:", what, name);
	if (err == EAI_NONAME)
		printf(" no such name");
#ifdef EAI_NODATA
	else if (err == EAI_NODATA)
		printf(" no address");
#endif
	else if (err == EAI_AGAIN)
		printf(" try again");
	else if (err)
		printf(" error %d", err);
	else {
		for (struct addrinfo *a = all; a; a = a->ai_next) {
			char text[NI_MAXHOST], port[NI_MAXSERV];
			getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
			printf(" %s:%s", text, port);
		}
		freeaddrinfo(all);
	}
	printf("\n");
}

// records asks for all of a type, by the search list.
static void records(const char *what, const char *name, int type)
{
	unsigned char answer[8192];
	int n = res_search(name, ns_c_in, type, answer, sizeof answer);
	printf("%s %s:", what, name);
	ns_msg m;
	if (n < 0)
		printf(h_errno == HOST_NOT_FOUND ? " no such name" : h_errno == NO_DATA ? " none" : " error %d", h_errno);
	else if (ns_initparse(answer, n, &m) == 0) {
		for (int i = 0; i < ns_msg_count(m, ns_s_an); i++) {
			ns_rr r;
			char text[NS_MAXDNAME] = "";
			if (ns_parserr(&m, ns_s_an, i, &r))
				break;
			const unsigned char *d = ns_rr_rdata(r);
			int names = ns_rr_type(r) == ns_t_srv ? 6 : ns_rr_type(r) == ns_t_cname || ns_rr_type(r) == ns_t_ptr ? 0 : -1;
			if (names >= 0)
				dn_expand(ns_msg_base(m), ns_msg_end(m), d + names, text, sizeof text);
			if (ns_rr_type(r) == ns_t_srv)
				printf(" %d/%d/%d", ns_get16(d), ns_get16(d + 2), ns_get16(d + 4));
			printf(" %s %d bytes;", text, names < 0 ? ns_rr_rdlen(r) : 0);
		}
	}
	printf("\n");
}

// hear connects to the first address that takes it and prints a line from there.
static int hear(const char *name, const char *port)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;
	if (getaddrinfo(name, port, &hints, &all))
		return printf("no such name\n"), 1;
	for (struct addrinfo *a = all; a; a = a->ai_next) {
		int s = socket(a->ai_family, a->ai_socktype, 0);
		if (s < 0 || connect(s, a->ai_addr, a->ai_addrlen))
			continue;
		char line[100];
		ssize_t n = write(s, "hi\n", 3) == 3 ? read(s, line, sizeof line) : 0;
		printf("%.*s", n < 0 ? 0 : (int)n, line);
		return 0;
	}
	return printf("nobody\n"), 1;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "connect"))
		return hear(argv[2], argv[3]);
	for (int i = 1; i < argc; i++) {
		struct sockaddr_in a = {.sin_family = AF_INET};
		if (inet_pton(AF_INET, argv[i], &a.sin_addr) == 1) {
			char name[NI_MAXHOST];
			int err = getnameinfo((struct sockaddr *)&a, sizeof a, name, sizeof name, 0, 0, NI_NAMEREQD);
			printf("name of %s: %s\n", argv[i], err ? gai_strerror(err) : name);
			continue;
		}
		show("lookup", argv[i], 0);
		show("lookup for this host", argv[i], AI_ADDRCONFIG);
		records("services", argv[i], ns_t_srv);
		records("texts", argv[i], ns_t_txt);
		records("alias", argv[i], ns_t_cname);
	}
}
