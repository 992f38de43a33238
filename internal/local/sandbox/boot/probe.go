package boot

import (
	"golang.org/x/sys/unix"

	"github.com/mirrord-go/mirrord/internal/local/sandbox/handoff"
)

// probe tries each thing that a sandbox needs of the machine, independently of
// the others, in the namespaces and with the capabilities that it would have,
// and reports each. Nothing of it outlives this process. The filter comes last,
// after the mount, which hides /proc.
func (s *setup) probe() *handoff.Error {
	for _, p := range []struct {
		step handoff.Step
		path string
		try  func() error
	}{
		{handoff.StepTUN, "/dev/net/tun", func() error { return closing(openTUN()) }},
		{handoff.StepNFT, "", func() error { return applyRules(nil) }},
		{handoff.StepFUSE, "/dev/fuse", func() error { return closing(openFUSE()) }},
		{handoff.StepSeccomp, "", func() error {
			if fd, e := listenerFilter(); e != 0 {
				return e
			} else {
				return unix.Close(fd)
			}
		}},
	} {
		result := &handoff.Error{Step: p.step}
		if err := p.try(); err != nil {
			result = failure(p.step, p.path, err)
		}
		if err := s.conn.Send(handoff.Message{Kind: handoff.KindProbed, Body: result.Encode()}); err != nil {
			return failure(handoff.StepSpec, "", err)
		}
	}
	return nil
}

func closing(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}
