package sandbox

import "os"

func serveRoot(binds []string) (func(*os.File) error, func()) { return nil, func() {} }
