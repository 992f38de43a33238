package process

import "github.com/mirrord-go/mirrord/internal/mountinfo"

// Mounts gives where the process pid has volumes, as an agent beside it would
// say: see mountinfo.Volumes. Errors are those of Start.
func Mounts(pid int) ([]string, error) {
	t, err := look(pid)
	if err != nil {
		return nil, err
	}
	points, err := mountinfo.Volumes(pid)
	if err != nil {
		return nil, t.denied(err)
	}
	return points, nil
}
