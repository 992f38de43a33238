package mountinfo

import (
	"slices"
	"strings"
	"testing"
)

func TestVolumes(t *testing.T) {
	table := strings.Join([]string{
		`1 0 0:1 / / rw - overlay overlay rw`,
		`2 1 0:2 / /proc rw - proc proc rw`,
		`3 1 0:3 / /dev rw - tmpfs tmpfs rw`,
		`4 3 0:4 / /dev/shm rw - tmpfs shm rw`,
		`5 1 8:1 /var/lib/kubelet/pods/x/etc-hosts /etc/hosts rw - ext4 /dev/sda rw`,
		`6 1 0:6 / /etc/app ro,relatime shared:1 master:2 - ext4 /dev/sda rw`,
		`7 1 0:7 / /run/secrets/kubernetes.io/serviceaccount ro - tmpfs tmpfs rw`,
		`8 1 0:8 / /with\040blank rw - nfs4 server:/x rw`,
		`9 1 0:9 / /data rw - ext4 /dev/sdb rw`,
		`10 1 0:9 / /data rw - ext4 /dev/sdb rw`,
		`11 1 0:9 / /sys/fs/cgroup rw - cgroup2 cgroup rw`,
		`12 1 broken`,
		`13 1 0:9 / relative rw - ext4 x rw`,
		`14 1 0:9 / /elsewhere rw - cgroup2 cgroup rw`,
	}, "\n")
	got := volumes(table)
	want := []string{"/data", "/etc/app", "/etc/hosts", "/run/secrets/kubernetes.io/serviceaccount", "/with blank"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzVolumes(f *testing.F) {
	f.Add(`1 0 0:1 / /a\040b rw - ext4 x rw`)
	f.Fuzz(func(t *testing.T, table string) {
		for _, p := range volumes(table) {
			if !strings.HasPrefix(p, "/") {
				t.Errorf("volume at %q", p)
			}
		}
	})
}
