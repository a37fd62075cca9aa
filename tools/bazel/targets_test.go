package bazel

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/bazelbuild/buildtools/build"
	"github.com/stretchr/testify/require"
)

// A target is what a BUILD file declares with one call.
type target struct {
	kind, name string
	srcs, data []string // files of its package; what is elsewhere is left out
	deps       []string // folders
}

var errTooClever = errors.New("this test reads lists of names, glob and + only")

// readTargets reads the BUILD file of a folder. files are those that glob finds there.
func readTargets(folder string, data []byte, files []string) ([]target, error) {
	name := folder + "/BUILD.bazel"
	parsed, err := build.ParseBuild(name, data)
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, rule := range parsed.Rules("") {
		if rule.Name() == "" {
			continue // load, exports_files
		}
		t := target{kind: rule.Kind(), name: rule.Name()}
		lists := map[string]*[]string{"srcs": &t.srcs, "data": &t.data, "deps": &t.deps}
		for attribute, list := range lists {
			if *list, err = names(rule.Attr(attribute), files); err != nil {
				return nil, fmt.Errorf("%s: %s of %s: %w", name, attribute, t.name, err)
			}
		}
		for i, label := range t.deps {
			t.deps[i] = labelFolder(folder, label)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

// labelFolder is the folder of a label: "//a/b", "//a/b:c", and ":c" in its own.
func labelFolder(own, label string) string {
	there, _, _ := strings.Cut(label, ":")
	if there == "" {
		return own
	}
	return strings.TrimPrefix(there, "//")
}

// names is the list that an expression makes.
func names(e build.Expr, files []string) ([]string, error) {
	switch e := e.(type) {
	case nil:
		return nil, nil
	case *build.ListExpr:
		var all []string
		for _, element := range e.List {
			s, ok := element.(*build.StringExpr)
			if !ok {
				return nil, errTooClever
			}
			all = append(all, s.Value)
		}
		return all, nil
	case *build.BinaryExpr:
		left, err := names(e.X, files)
		if err != nil || e.Op != "+" {
			return nil, errTooClever
		}
		right, err := names(e.Y, files)
		return append(left, right...), err
	case *build.CallExpr:
		if function, ok := e.X.(*build.Ident); ok && function.Name == "glob" {
			return globbed(e.List, files)
		}
	}
	return nil, errTooClever
}

// globbed is what glob finds with its arguments.
func globbed(args []build.Expr, files []string) ([]string, error) {
	lists := map[string][]string{}
	for _, arg := range args {
		name, value := "include", arg
		if named, ok := arg.(*build.AssignExpr); ok {
			ident, ok := named.LHS.(*build.Ident)
			if !ok {
				return nil, errTooClever
			}
			name, value = ident.Name, named.RHS
		}
		list, err := names(value, nil)
		if err != nil {
			return nil, err
		}
		lists[name] = list
	}
	var found []string
	for _, file := range files {
		matches := func(pattern string) bool { return globPattern(pattern).MatchString(file) }
		if slices.ContainsFunc(lists["include"], matches) && !slices.ContainsFunc(lists["exclude"], matches) {
			found = append(found, file)
		}
	}
	return found, nil
}

// globPattern matches what a pattern of glob does: * within a name, ** any number of folders.
func globPattern(pattern string) *regexp.Regexp {
	replaced := strings.NewReplacer(`\*\*/`, `(.*/)?`, `\*\*`, `.*`, `\*`, `[^/]*`).Replace(regexp.QuoteMeta(pattern))
	return regexp.MustCompile("^" + replaced + "$")
}

// TestBuildFilesAreFormatted: as buildifier formats them.
func TestBuildFilesAreFormatted(t *testing.T) {
	root := filepath.Join("..", "..")
	var files []string
	for _, pattern := range []string{"WORKSPACE", "MODULE.bazel", "BUILD.bazel", "*/BUILD.bazel", "*/*/BUILD.bazel", "*/*/*/BUILD.bazel", "tools/bazel/*.bzl"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		files = append(files, found...)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		parsed, err := build.Parse(path.Base(file), data)
		require.NoError(t, err)
		require.Equal(t, string(build.Format(parsed)), string(data), "%s: run buildifier on it", file)
	}
}
