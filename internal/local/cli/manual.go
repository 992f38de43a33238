package cli

import (
	"os"
	"time"

	"github.com/spf13/cobra/doc"
)

// Manual writes a page of section 1 (man-pages(7)) for each command into dir,
// which it makes. It is not called by the program itself.
func Manual(dir, version string, at time.Time) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root := (&app{version: version}).root()
	root.DisableAutoGenTag = true
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "mirrord " + version, Manual: "mirrord", Date: &at}, dir)
}
