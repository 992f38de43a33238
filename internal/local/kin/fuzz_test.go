package kin

import (
	"strings"
	"testing"
)

// FuzzProc: names of processes may hold anything, and end up in these files.
func FuzzProc(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0",
		"Name:\tx\\nPid:\t1\nUmask:\t0022\nPid:\t7\nPPid:\t3\nUid:\t1000\t1000\t1000\t1000\n")
	f.Add("   0: 00000000000000000000000000000000:0050 x x 0A x x x x x 7", "Name:\t\nUid:\n")
	f.Fuzz(func(t *testing.T, socket, status string) {
		if local, _, ok := parseSocket(socket); ok && !local.IsValid() {
			t.Errorf("%q: %v", socket, local)
		}
		if p, ok := parseStatus(status); ok && (p.PID <= 0 || p.UID < 0 || strings.Contains(p.Title, "\n")) {
			t.Errorf("%q: %+v", status, p)
		}
	})
}
