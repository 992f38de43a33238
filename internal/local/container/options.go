package container

import (
	"fmt"
	"slices"
	"strings"
)

// syntax is what options a command has: those that take a value, those that
// take none (or "=true", "=false"), and what the letters stand for.
type syntax struct {
	values, flags []string
	letters       map[byte]string
}

// engineSyntax is that of podman itself, before its command.
var engineSyntax = syntax{
	values: strings.Fields(`cdi-spec-dir cgroup-manager config conmon connection context db-backend events-backend hooks-dir host
		identity imagestore log-level module namespace network-cmd-path network-config-dir out registries-conf root runroot
		runtime runtime-flag ssh storage-driver storage-opt tls-ca tls-cert tls-key tmpdir url volumepath`),
	flags:   strings.Fields(`debug help noout remote syslog trace transient-store version`),
	letters: map[byte]string{'c': "connection", 'r': "remote", 'v': "version", 'H': "host"},
}

// runSyntax is that of podman run, of versions 3 to 5.
var runSyntax = syntax{
	values: strings.Fields(`add-host annotation arch attach authfile blkio-weight blkio-weight-device cap-add cap-drop cert-dir
		cgroup-conf cgroup-parent cgroupns cgroups chrootdirs cidfile conmon-pidfile cpu-period cpu-quota cpu-rt-period
		cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems creds decryption-key detach-keys device device-cgroup-rule
		device-read-bps device-read-iops device-write-bps device-write-iops dns dns-opt dns-option dns-search entrypoint env
		env-file env-merge expose gidmap gpus group-add group-entry health-cmd health-interval health-log-destination
		health-max-log-count health-max-log-size health-on-failure health-retries health-start-period health-startup-cmd
		health-startup-interval health-startup-retries health-startup-success health-startup-timeout health-timeout hostname
		hosts-file hostuser image-volume init-path ip ip6 ipc kernel-memory label label-file link log-driver log-opt
		mac-address memory memory-reservation memory-swap memory-swappiness mount name net network network-alias oom-score-adj
		os passwd-entry personality pid pidfile pids-limit platform pod pod-id-file preserve-fd preserve-fds publish pull
		rdt-class requires restart retry retry-delay sdnotify seccomp-policy secret security-opt shm-size shm-size-systemd
		stop-signal stop-timeout storage-opt subgidname subuidname sysctl systemd timeout tmpfs tz uidmap ulimit umask
		unsetenv user userns uts variant volume volumes-from workdir`),
	flags: strings.Fields(`detach disable-content-trust env-host help http-proxy init interactive no-healthcheck no-hostname
		no-hosts oom-kill-disable passwd privileged publish-all quiet read-only read-only-tmpfs replace rm rmi rootfs
		sig-proxy tls-verify tty unsetenv-all`),
	letters: map[byte]string{'a': "attach", 'c': "cpu-shares", 'd': "detach", 'e': "env", 'h': "hostname", 'i': "interactive", 'l': "label",
		'm': "memory", 'P': "publish-all", 'p': "publish", 'q': "quiet", 't': "tty", 'u': "user", 'v': "volume", 'w': "workdir"},
}

// Option is one option by its long name.
type Option struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
	Bare  bool   `json:"bare,omitempty"` // it stands alone: there is no value
}

// on reports whether an option without a value, or with a truth, holds.
func (o Option) on() bool { return o.Bare || o.Value == "true" || o.Value == "1" || o.Value == "t" }

// String is the option as one argument, which says the same to every version.
func (o Option) String() string {
	if o.Bare {
		return "--" + o.Name
	}
	return "--" + o.Name + "=" + o.Value
}

// read takes the options from the beginning of args, up to the first argument
// that is none, as pflag does.
func (s syntax) read(args []string) (options []Option, rest []string, err error) {
	for len(args) > 0 {
		arg := args[0]
		switch {
		case arg == "--":
			return options, args[1:], nil
		case len(arg) < 2 || arg[0] != '-':
			return options, args, nil
		}
		args = args[1:]
		var found []Option
		if name, long := strings.CutPrefix(arg, "--"); long {
			found, args, err = s.long(name, args)
		} else {
			found, args, err = s.short(arg[1:], args)
		}
		if err != nil {
			return nil, nil, err
		}
		options = append(options, found...)
	}
	return options, nil, nil
}

func (s syntax) long(name string, args []string) ([]Option, []string, error) {
	name, value, given := strings.Cut(name, "=")
	switch {
	case given:
		return []Option{{Name: name, Value: value}}, args, nil
	case slices.Contains(s.flags, name):
		return []Option{{Name: name, Bare: true}}, args, nil
	case !slices.Contains(s.values, name):
		return nil, nil, fmt.Errorf("--%s is not known here: write it with its value behind \"=\", or --%s=true", name, name)
	case len(args) == 0:
		return nil, nil, fmt.Errorf("--%s needs a value", name)
	}
	return []Option{{Name: name, Value: args[0]}}, args[1:], nil
}

// short reads letters: several without a value may stand together, and the value
// of the last one behind it ("-itp8080:80").
func (s syntax) short(letters string, args []string) (options []Option, rest []string, err error) {
	for i := range len(letters) {
		name, ok := s.letters[letters[i]]
		switch {
		case !ok:
			return nil, nil, fmt.Errorf("-%c is not known here", letters[i])
		case i+1 < len(letters) && (letters[i+1] == '=' || !slices.Contains(s.flags, name)):
			return append(options, Option{Name: name, Value: strings.TrimPrefix(letters[i+1:], "=")}), args, nil
		case slices.Contains(s.flags, name):
			options = append(options, Option{Name: name, Bare: true})
			continue
		case len(args) == 0:
			return nil, nil, fmt.Errorf("-%c needs a value", letters[i])
		}
		return append(options, Option{Name: name, Value: args[0]}), args[1:], nil
	}
	return options, args, nil
}
