package rules

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/joho/godotenv"
)

// ParseEnvFile reads a file of variables (dotenv syntax) as sorted
// "NAME=value". An error says the line and nothing of the file's content, which
// is often secret; name is how the file is called in it.
func ParseEnvFile(name string, text []byte) ([]string, error) {
	normal := strings.ReplaceAll(string(text), "\r\n", "\n") // as godotenv does, which counts from there
	vars, err := godotenv.Unmarshal(normal)
	if err != nil {
		at, what := dotenvError(normal, err.Error())
		return nil, fmt.Errorf("%s:%d: %s", name, at, what)
	}
	list := make([]string, 0, len(vars))
	for _, k := range slices.Sorted(maps.Keys(vars)) {
		if k == "" { // a last line that is only a name, or only a value
			return nil, fmt.Errorf("%s:%d: a variable is written NAME=value", name, lineOf(normal, len(strings.TrimSpace(normal))))
		}
		list = append(list, k+"="+vars[k])
	}
	return list, nil
}

// dotenvError finds the line of an error of godotenv, which quotes the text
// that it stopped at instead.
func dotenvError(text, message string) (line int, what string) {
	if _, near, ok := strings.Cut(message, " in variable name near "); ok {
		if rest, err := strconv.Unquote(near); err == nil && strings.HasSuffix(text, rest) {
			return lineOf(text, len(text)-len(rest)), "a variable is written NAME=value, its name of letters, digits, _ and ."
		}
	}
	if value, ok := strings.CutPrefix(message, "unterminated quoted value "); ok {
		// What comes after it has no such quote, so the last place is the one.
		return lineOf(text, max(0, strings.LastIndex(text, value))), "a quoted value does not end"
	}
	return 1, "this is no file of variables"
}

func lineOf(text string, offset int) int { return 1 + strings.Count(text[:offset], "\n") }
