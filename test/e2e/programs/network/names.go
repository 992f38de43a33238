package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// lookup asks Go's own resolver for names.
func lookup(names []string) {
	r := &net.Resolver{PreferGo: true}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, name := range names {
		if _, err := netip.ParseAddr(name); err == nil {
			all, err := r.LookupAddr(ctx, name)
			show("go, name of "+name, all, resolved(err))
			continue
		}
		hosts, err := r.LookupHost(ctx, name)
		if len(hosts) > 8 {
			hosts = []string{fmt.Sprint(len(hosts), " addresses")}
		}
		show("go, addresses of "+name, hosts, resolved(err))
		_, services, err := r.LookupSRV(ctx, "", "", name)
		for _, s := range services {
			show("go, service "+name, *s)
		}
		show("go, services of "+name, resolved(err))
		texts, err := r.LookupTXT(ctx, name)
		size := 0
		for _, t := range texts {
			size += len(t)
		}
		show("go, texts of "+name, len(texts), size, resolved(err))
		alias, err := r.LookupCNAME(ctx, name)
		show("go, alias "+name, alias, resolved(err))
	}
}

// resolved is a failed lookup without its time and server.
func resolved(err error) string {
	var e *net.DNSError
	switch {
	case err == nil:
		return "found"
	case !errors.As(err, &e):
		return err.Error()
	case e.IsNotFound:
		return "no such name"
	case e.IsTimeout:
		return "timeout"
	}
	return fmt.Sprintf("%s, temporary %v", e.Err, e.IsTemporary)
}
