// Package bazel holds the rules of the Bazel build, and the test that keeps the BUILD files true.
package bazel

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBuildFilesDeclareTheGoCode: each Go file and each file of test data belongs to a target, and each
// target's deps are the packages that its files import, neither fewer nor more.
func TestBuildFilesDeclareTheGoCode(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "WORKSPACE")); err != nil {
		t.Skip("not in a checkout: Bazel shows its tests what they declare and no more; `go test ./tools/...` runs this one")
	}
	for _, problem := range undeclared(t, root) {
		t.Error(problem)
	}
}

// undeclared compares the packages below root with their BUILD files.
func undeclared(t *testing.T, root string) (problems []string) {
	t.Helper()
	packages := findPackages(t, root)
	for _, folder := range slices.Sorted(maps.Keys(packages)) {
		p := packages[folder]
		data, err := os.ReadFile(filepath.Join(root, folder, "BUILD.bazel"))
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s has Go files and no BUILD.bazel", folder))
			continue
		}
		targets, err := readTargets(folder, data, p.files())
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		for _, problem := range p.compare(targets) {
			problems = append(problems, fmt.Sprintf("%s/BUILD.bazel: %s", folder, problem))
		}
	}
	return problems
}

// compare says what is wrong with the targets of a package.
func (p *goPackage) compare(targets []target) (problems []string) {
	inSrcs, inData := map[string]bool{}, map[string]bool{}
	for _, target := range targets {
		for _, file := range target.srcs {
			inSrcs[file] = true
		}
		for _, file := range target.data {
			inData[file] = true
		}
		problems = append(problems, p.compareDeps(target)...)
	}
	for _, file := range slices.Sorted(maps.Keys(p.imports)) {
		if !inSrcs[file] {
			problems = append(problems, fmt.Sprintf("%s is in no target's srcs", file))
		}
	}
	for _, file := range p.testdata {
		if !inData[file] {
			problems = append(problems, fmt.Sprintf("%s is in no target's data", file))
		}
	}
	if p.isSuite() && !slices.ContainsFunc(targets, func(t target) bool {
		return t.kind == "syscall_test" && t.name == filepath.Base(p.folder)
	}) {
		problems = append(problems, fmt.Sprintf("a suite of system calls, and no syscall_test is called %s", filepath.Base(p.folder)))
	}
	return problems
}

// compareDeps compares what a target's files import with the packages it names.
func (p *goPackage) compareDeps(t target) (problems []string) {
	wanted := map[string]bool{}
	tests, sources := false, false
	for _, file := range t.srcs {
		for _, folder := range p.imports[file] {
			wanted[folder] = true
		}
		test := strings.HasSuffix(file, "_test.go")
		tests = tests || test
		sources = sources || !test
	}
	// A suite may have the sources that it tests with it.
	if tests && !sources && p.hasLibrary() {
		wanted[p.folder] = true
	}
	for _, folder := range slices.Sorted(maps.Keys(wanted)) {
		if !slices.Contains(t.deps, folder) {
			problems = append(problems, fmt.Sprintf("%s imports %s, which is not in its deps", t.name, folder))
		}
	}
	for _, folder := range t.deps {
		if len(t.srcs) > 0 && !wanted[folder] {
			problems = append(problems, fmt.Sprintf("%s has %s in its deps and does not import it", t.name, folder))
		}
	}
	return problems
}

// TestWhatIsNotDeclaredIsFound changes one thing at a time in a small repository where all is declared.
func TestWhatIsNotDeclaredIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		file, old, new string
		want           []string
	}{
		"nothing":            {"lib/BUILD.bazel", "", "", nil},
		"no BUILD file":      {"new/new.go", "", "package new", []string{"new has Go files and no BUILD.bazel"}},
		"a new import":       {"lib/lib.go", "package lib", "package lib\nimport _ \"sentrymm/base/deep\"", []string{"lib/BUILD.bazel: lib imports base/deep, which is not in its deps"}},
		"a missing dep":      {"lib/BUILD.bazel", `deps = ["//base"],`, ``, []string{"lib/BUILD.bazel: lib imports base, which is not in its deps"}},
		"an old dep":         {"lib/lib.go", `import _ "sentrymm/base"`, ``, []string{"lib/BUILD.bazel: lib has base in its deps and does not import it"}},
		"its own sources":    {"lib/BUILD.bazel", `deps = [":lib"],`, ``, []string{"lib/BUILD.bazel: lib_test imports lib, which is not in its deps"}},
		"assembly":           {"base/add_amd64.s", "", "// nothing", []string{"base/BUILD.bazel: add_amd64.s is in no target's srcs"}},
		"test data":          {"lib/testdata/deep/two", "", "2", nil},
		"no test data":       {"lib/BUILD.bazel", `glob(["testdata/**"])`, `glob(["testdata/mod/*", "testdata/one"])`, []string{"lib/BUILD.bazel: testdata/deep/three is in no target's data"}},
		"an excluded":        {"lib/BUILD.bazel", `exclude = ["*_test.go"]`, `exclude = ["*.go"]`, []string{"lib/BUILD.bazel: lib.go is in no target's srcs"}},
		"no suite":           {"test/syscalls/brk/BUILD.bazel", "syscall_test", "go_unit_test", []string{"test/syscalls/brk/BUILD.bazel: a suite of system calls, and no syscall_test is called brk"}},
		"sources of a suite": {"test/syscalls/brk/asm.go", "", "package brk", nil},
		"a suite's name":     {"test/syscalls/brk/BUILD.bazel", `"brk"`, `"sbrk"`, []string{"test/syscalls/brk/BUILD.bazel: a suite of system calls, and no syscall_test is called brk"}},
		"not a list":         {"lib/BUILD.bazel", `deps = ["//base"],`, `deps = BASE,`, []string{"lib/BUILD.bazel: deps of lib: this test reads lists of names, glob and + only"}},
	} {
		t.Run(name, func(t *testing.T) {
			root := smallRepository(t)
			file := filepath.Join(root, c.file)
			if before, err := os.ReadFile(file); err == nil {
				require.Contains(t, string(before), c.old)
				writeFile(t, file, strings.Replace(string(before), c.old, c.new, 1))
			} else {
				writeFile(t, file, c.new)
			}
			got := undeclared(t, root)
			require.Len(t, got, len(c.want), "%q", got)
			for i, want := range c.want {
				require.Contains(t, got[i], want)
			}
		})
	}
}

func smallRepository(t *testing.T) string {
	root := t.TempDir()
	for name, content := range map[string]string{
		"base/BUILD.bazel":      `go_sources(name = "base", srcs = ["base.go"])`,
		"base/base.go":          "package base",
		"base/deep/BUILD.bazel": `go_sources(name = "deep", srcs = glob(["*.go"]))`,
		"base/deep/deep.go":     "package deep",
		"lib/BUILD.bazel": `go_sources(
    name = "lib",
    srcs = glob(["*.go"], exclude = ["*_test.go"]),
    deps = ["//base"],
)

go_unit_test(
    name = "lib_test",
    srcs = glob(["*_test.go"]),
    data = glob(["testdata/**"]) + ["//:Makefile"],
    deps = [":lib"],
)`,
		"lib/lib.go":                    "package lib\nimport _ \"sentrymm/base\"\nimport _ \"os\"",
		"lib/lib_test.go":               "package lib",
		"lib/testdata/one":              "1",
		"lib/testdata/deep/three":       "3",
		"lib/testdata/mod/main.go":      "package main",
		"build/staged/staged.go":        "package staged",
		"other/go.mod":                  "module other",
		"other/other.go":                "package other",
		"test/syscalls/kit/kit.go":      "package kit",
		"test/syscalls/brk/brk_test.go": "package brk\nimport _ \"sentrymm/test/syscalls/kit\"",
		"test/syscalls/kit/BUILD.bazel": `go_sources(name = "kit", srcs = ["kit.go"])`,
		"test/syscalls/brk/BUILD.bazel": `syscall_test(name = "brk", srcs = glob(["*.go"]), deps = ["//test/syscalls/kit"])`,
	} {
		writeFile(t, filepath.Join(root, name), content)
	}
	// As Bazel leaves it in the checkout.
	require.NoError(t, os.Symlink(filepath.Join(root, "lib"), filepath.Join(root, "bazel-bin")))
	return root
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, []byte(content), 0o644))
}
