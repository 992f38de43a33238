/* server PORT: an HTTP server on bare system calls, linked statically by the tests. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv) {
	int s = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(s, (void *)&a, sizeof a) || listen(s, 16)) {
		perror("listen");
		return 1;
	}
	puts("listening");
	fflush(stdout);
	for (;;) {
		struct sockaddr_in peer;
		socklen_t n = sizeof peer;
		char in[4096], path[256] = "", body[512], out[1024], ip[64];
		int c = accept(s, (void *)&peer, &n), r, len = 0;
		if (c < 0)
			continue;
		while (len < (int)sizeof in - 1 && (r = read(c, in + len, sizeof in - 1 - len)) > 0) {
			in[len += r] = 0;
			if (strstr(in, "\r\n\r\n"))
				break;
		}
		sscanf(in, "%*s %255s", path);
		inet_ntop(AF_INET, &peer.sin_addr, ip, sizeof ip);
		printf("got %s from %s\n", path, ip);
		fflush(stdout);
		snprintf(body, sizeof body, "local c %s peer=%s\n", path, ip);
		snprintf(out, sizeof out, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
		if (write(c, out, strlen(out)) < 0)
			perror("write");
		close(c);
	}
}
