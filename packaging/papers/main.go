// Command papers writes what lies beside the program in a package: a manual page
// for each command, and the list of the modules that it is made of (SBOM).
//
//	papers -version 1.2.3 -time 1700000000 -program dist/mirrord -out DIR
package main

import (
	"debug/buildinfo"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/mirrord-go/mirrord/internal/local/cli"
)

func main() {
	version := flag.String("version", "", "version of the package")
	seconds := flag.Int64("time", 0, "time of the release, in seconds since 1970")
	program := flag.String("program", "", "the program that is packed")
	out := flag.String("out", ".", "directory to write to")
	flag.Parse()
	at := time.Unix(*seconds, 0).UTC()
	err := cli.Manual(filepath.Join(*out, "man"), *version, at)
	if err == nil {
		err = materials(filepath.Join(*out, "mirrord.spdx.json"), *program, *version, at)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "papers:", err)
		os.Exit(1)
	}
}

// materials writes a list in the form of SPDX 2.3 (JSON), of what the linker
// noted in the program.
func materials(path, program, version string, at time.Time) error {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(list(info, version, at), "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

type document struct {
	Version   string         `json:"spdxVersion"`
	Licence   string         `json:"dataLicense"`
	ID        string         `json:"SPDXID"`
	Name      string         `json:"name"`
	Namespace string         `json:"documentNamespace"`
	Creation  map[string]any `json:"creationInfo"`
	Packages  []part         `json:"packages"`
	Relations []relation     `json:"relationships"`
}

type part struct {
	ID       string      `json:"SPDXID"`
	Name     string      `json:"name"`
	Version  string      `json:"versionInfo"`
	Place    string      `json:"downloadLocation"`
	Analyzed bool        `json:"filesAnalyzed"`
	Refs     []reference `json:"externalRefs"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relation struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

func list(info *debug.BuildInfo, version string, at time.Time) document {
	const top = "SPDXRef-mirrord"
	d := document{
		Version: "SPDX-2.3", Licence: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: "mirrord-" + version,
		Namespace: "https://github.com/mirrord-go/mirrord/releases/" + version + "/mirrord.spdx.json",
		Creation:  map[string]any{"created": at.Format(time.RFC3339), "creators": []string{"Tool: mirrord-papers"}},
		Packages:  []part{module(top, info.Main.Path, version)},
		Relations: []relation{{"SPDXRef-DOCUMENT", "DESCRIBES", top}},
	}
	add := func(path, version string) {
		id := fmt.Sprintf("SPDXRef-%d", len(d.Packages))
		d.Packages = append(d.Packages, module(id, path, version))
		d.Relations = append(d.Relations, relation{top, "DEPENDS_ON", id})
	}
	add("stdlib", info.GoVersion)
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(m.Path, m.Version)
	}
	return d
}

// module is one of Go's, with its name for searches of weaknesses (purl).
func module(id, path, version string) part {
	return part{ID: id, Name: path, Version: version, Place: "NOASSERTION",
		Refs: []reference{{"PACKAGE-MANAGER", "purl", "pkg:golang/" + path + "@" + version}}}
}
