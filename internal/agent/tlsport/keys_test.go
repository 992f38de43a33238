package tlsport

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestKeysOfNow: new files count soon, those that do not fit never.
func TestKeysOfNow(t *testing.T) {
	s := newStage(t)
	again, key := s.servers.Issue(t, shop)
	synctest.Test(t, func(t *testing.T) {
		k := NewKeys(s.files, s.disk.read)
		first, err := k.now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		reads := s.disk.reads
		if second, err := k.now(t.Context()); second != first || err != nil || s.disk.reads != reads {
			t.Errorf("at once: %v, %d reads more", err, s.disk.reads-reads)
		}
		s.disk.put("/tls/shop.example.crt", again) // its key comes later
		time.Sleep(2 * freshTime)
		if now, err := k.now(t.Context()); now != first || err != nil {
			t.Errorf("half of it: %v", err)
		}
		s.disk.put("/tls/shop.example.key", key)
		time.Sleep(2 * freshTime)
		now, err := k.now(t.Context())
		if err != nil || now == first || string(now.servers[0].Certificate[0]) == string(first.servers[0].Certificate[0]) {
			t.Errorf("the new ones: %v", err)
		}
	})
}

// TestKeysHang: storage that hangs holds up each connection for a moment, and one read.
func TestKeysHang(t *testing.T) {
	s := newStage(t)
	synctest.Test(t, func(t *testing.T) {
		reads, hangs := 0, make(chan struct{})
		read := func(ctx context.Context, name string, most int) ([]byte, error) {
			reads++
			<-hangs
			return s.disk.read(ctx, name, most)
		}
		k := NewKeys(s.files, read)
		for range 3 {
			begun := time.Now()
			if _, err := k.now(t.Context()); err == nil || !strings.Contains(err.Error(), "read /tls/shop.example.crt: nothing has come of it for 1s") || time.Since(begun) != readTime {
				t.Errorf("got %v after %v", err, time.Since(begun))
			}
		}
		synctest.Wait() // for what reads to have counted it
		if reads != 1 {
			t.Errorf("%d reads at once", reads)
		}
		close(hangs)
		synctest.Wait()
		if _, err := k.now(t.Context()); err != nil {
			t.Errorf("when it goes on: %v", err)
		}
		hangs = make(chan struct{})
		time.Sleep(2 * freshTime)
		if _, err := k.now(t.Context()); err != nil {
			t.Errorf("with the last good ones: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begun := time.Now()
		if _, _ = k.now(ctx); time.Since(begun) > 0 {
			t.Errorf("who does not wait waits %v", time.Since(begun))
		}
		close(hangs)
		synctest.Wait()
	})
}
