package bazel

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module    = "sentrymm/"
	suites    = "test/syscalls"
	suitesKit = suites + "/kit"
)

// A goPackage is a folder with Go code, on whatever architecture it compiles.
type goPackage struct {
	folder   string
	imports  map[string][]string // by source file: the folders of this repository that it imports
	testdata []string            // files
}

func (p *goPackage) files() []string {
	return append(slices.Collect(maps.Keys(p.imports)), p.testdata...)
}

// hasLibrary says whether there is anything but tests.
func (p *goPackage) hasLibrary() bool {
	for file := range p.imports {
		if strings.HasSuffix(file, ".go") && !strings.HasSuffix(file, "_test.go") {
			return true
		}
	}
	return false
}

// isSuite says whether these are tests that the runner runs: those that use the kit.
func (p *goPackage) isSuite() bool {
	if path.Dir(p.folder) != suites || p.hasLibrary() {
		return false
	}
	for _, folders := range p.imports {
		if slices.Contains(folders, suitesKit) {
			return true
		}
	}
	return false
}

// findPackages finds what `./...` would, and reads what the files import.
func findPackages(t *testing.T, root string) map[string]*goPackage {
	t.Helper()
	packages := map[string]*goPackage{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == root {
			return err
		}
		at, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			// build has what was made, and a folder with a go.mod is a module of its own.
			_, err := os.Stat(filepath.Join(file, "go.mod"))
			if at == "build" || err == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") {
				return fs.SkipDir
			}
			return nil
		}
		suffix := filepath.Ext(at)
		if suffix != ".go" && suffix != ".s" {
			return nil
		}
		folder := filepath.Dir(at)
		p := packages[folder]
		if p == nil {
			p = &goPackage{folder: folder, imports: map[string][]string{}, testdata: findTestdata(t, filepath.Dir(file))}
			packages[folder] = p
		}
		p.imports[d.Name()] = nil
		if suffix == ".go" {
			p.imports[d.Name()] = importedFolders(t, file)
		}
		return nil
	})
	require.NoError(t, err)
	return packages
}

func importedFolders(t *testing.T, file string) (folders []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	require.NoError(t, err)
	for _, i := range parsed.Imports {
		name, err := strconv.Unquote(i.Path.Value)
		require.NoError(t, err)
		if folder, ours := strings.CutPrefix(name, module); ours {
			folders = append(folders, folder)
		}
	}
	return folders
}

func findTestdata(t *testing.T, folder string) (files []string) {
	t.Helper()
	dir := filepath.Join(folder, "testdata")
	if _, err := os.Stat(dir); err != nil {
		return nil
	}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		at, err := filepath.Rel(folder, file)
		files = append(files, at)
		return err
	})
	require.NoError(t, err)
	return files
}
