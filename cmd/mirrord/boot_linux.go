package main

import "github.com/mirrord-go/mirrord/internal/local/sandbox/boot"

// playInside plays the roles that live inside a sandbox; it does not return in
// them.
func playInside() { boot.Main() }
