package config

import "github.com/mirrord-go/mirrord/internal/rules"

// hostName gives the name in an entry of an address filter.
func hostName(entry string) (name string, ok bool) {
	a, err := rules.ParseAddress(entry)
	return a.Name, err == nil && a.Name != ""
}
