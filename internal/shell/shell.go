// Package shell writes words as a POSIX shell reads them (XCU 2.2): what is
// printed to be typed is what would be run.
package shell

import "strings"

// plain are the characters that no shell takes for anything but themselves,
// wherever they stand.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,@%+"

// Quote writes one word, with quotes if it needs them.
func Quote(word string) string {
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Line writes a command.
func Line(argv ...string) string {
	words := make([]string, len(argv))
	for i, word := range argv {
		words[i] = Quote(word)
	}
	return strings.Join(words, " ")
}
