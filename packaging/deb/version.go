package main

import "strings"

// versionOfCommit is the version of what is checked out, as Debian orders them.
func versionOfCommit() (string, error) {
	described, err := git("describe", "--tags", "--match", "v[0-9]*", "--long", "--dirty", "--always")
	if err != nil {
		return "", err
	}
	date, err := git("log", "-1", "--format=%cd", "--date=format:%Y%m%d%H%M%S")
	if err != nil {
		return "", err
	}
	return debianVersion(described, date), nil
}

// debianVersion turns what git describe --long says into a version. What comes
// before a release has a tilde, which sorts before the end; what comes behind it a
// plus. Without a release yet, the date of the commit orders.
func debianVersion(described, date string) string {
	described, isDirty := strings.CutSuffix(described, "-dirty")
	version := "0~" + date + "." + described
	if tag, commit, found := cutLast(described, "-g"); found {
		tag, commits, _ := cutLast(tag, "-")
		version = strings.Replace(strings.TrimPrefix(tag, "v"), "-", "~", 1)
		if commits != "0" {
			version += "+" + commits + "." + commit
		}
	}
	if isDirty {
		version += "+changed"
	}
	return version
}

// cutLast cuts at the last place where the separator stands.
func cutLast(s, separator string) (before, after string, found bool) {
	i := strings.LastIndex(s, separator)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(separator):], true
}
