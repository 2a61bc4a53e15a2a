package node

import "runtime/debug"

// Build says which ovnd this is: the module's version ("dev" for a build from
// a work tree), and the commit and its time where the build recorded them.
func Build() (version, commit, buildTime string) {
	version = "dev"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version, "", ""
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		version = v[1:] // a module's version starts with v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.time":
			buildTime = s.Value
		}
	}
	return version, commit, buildTime
}
