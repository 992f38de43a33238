package diagnose

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/windows"
)

// Machine describes this machine: kernel, architecture.
func Machine() map[string]string {
	v := windows.RtlGetVersion()
	return map[string]string{"kernel": fmt.Sprintf("%d.%d.%d", v.MajorVersion, v.MinorVersion, v.BuildNumber), "machine": runtime.GOARCH}
}
