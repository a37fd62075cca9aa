package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every error says in its first line what is wrong, where, and what to do.

func TestNotLinux(t *testing.T) {
	require.NoError(t, checkOS("linux"))
	require.ErrorContains(t, checkOS("darwin"), "this is darwin: runsc needs Linux")
}

func TestUnsupportedArchitecture(t *testing.T) {
	require.NoError(t, checkArch("amd64"))
	require.NoError(t, checkArch("arm64"))
	require.ErrorContains(t, checkArch("riscv64"), "architecture riscv64: gVisor supports amd64 and arm64 only")
	_, err := openHere(t).buildRunsc(t.Context(), target{arch: "riscv64"})
	require.ErrorContains(t, err, "architecture riscv64")
}

func TestNotRoot(t *testing.T) {
	require.NoError(t, checkRoot(0))
	require.ErrorContains(t, checkRoot(1000), "user id is 1000: running containers needs root")
}

// fakeGo puts a program called go, and nothing else, on the PATH. It answers with a version.
func fakeGo(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\necho %s\n", version)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755))
	t.Setenv("PATH", dir)
	return filepath.Join(dir, "go")
}

func TestNoGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := findProject(t.Context())
	require.ErrorContains(t, err, "no go command on the PATH: install Go 1.26.3 or newer")
}

func TestGoTooOld(t *testing.T) {
	for version, tooOld := range map[string]bool{
		"go1.19.8":             true,
		"go1.26.2":             true,
		"go1.26rc1":            true,
		"go1.26.3":             false,
		"go1.26.8-custom":      false,
		"go1.27":               false,
		"go1.30.1 X:something": false,
	} {
		fakeGo(t, version)
		err := checkGo(t.Context(), "1.26.3")
		if tooOld {
			require.ErrorContains(t, err, "the go command is "+version+", too old: go.mod wants Go 1.26.3 or newer")
		} else {
			require.NoError(t, err, version)
		}
	}
}

// What the Makefile says where there is no Go to run this program with.
func TestMakeWithoutGo(t *testing.T) {
	makePath, err := exec.LookPath("make")
	if err != nil {
		t.Skip("no make here")
	}
	p := openHere(t)
	run := func(goCommand string) string {
		out, err := exec.Command(makePath, "-C", p.root, "build", "GO="+goCommand).CombinedOutput()
		require.Error(t, err)
		return string(out)
	}
	require.Contains(t, run("/nowhere/go"), "make: no Go on the PATH: install Go "+p.mod.Go+" or newer")
	path := os.Getenv("PATH")
	old := fakeGo(t, "go1.19.8")
	t.Setenv("PATH", path)
	require.Contains(t, run(old), "make: Go is 1.19.8, too old: install Go "+p.mod.Go+" or newer")
}

func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, checkSpace(filepath.Join(dir, "not", "there", "yet"), 1, "a test"))
	err := checkSpace(dir, 1<<62, "a test")
	require.ErrorContains(t, err, dir+": ")
	require.ErrorContains(t, err, "MiB free, a test needs 4398046511104 MiB: make room")
}

// A full file system in the middle of staging, not only before it.
func TestNoSpaceWhileStaging(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	require.NoError(t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"))
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	gvisor := makeFiles(t, map[string]string{"large": strings.Repeat("x", 1<<20)})
	l, err := stagedLayout(t.Context(), gvisor, smallMM(t))
	require.NoError(t, err)
	_, err = l.mirror(t.Context(), dir)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.ErrorContains(t, err, "make room below "+dir)
}

// The module is neither in the module cache nor to be had: the go command itself is used, on an empty
// cache and without a network.
func TestNoModuleAndNoNetwork(t *testing.T) {
	p := openHere(t)
	for name, proxy := range map[string]string{"no proxy": "off", "no answer": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("GOMODCACHE", t.TempDir())
			t.Setenv("GOPROXY", proxy)
			t.Setenv("GOFLAGS", "-modcacherw")
			_, err := p.buildRunsc(t.Context(), target{})
			version, _ := p.pinned()
			require.ErrorContains(t, err, gvisorPath+" "+version+" cannot be had")
			require.ErrorContains(t, err, "It is not in the module cache and the module proxy does not answer: connect this machine")
		})
	}
}

// Outside of the checkout.
func TestNotInTheCheckout(t *testing.T) {
	t.Chdir(t.TempDir())
	_, err := findProject(t.Context())
	require.ErrorContains(t, err, "run this inside the sentrymm checkout")
}

// Without its programs, and without apt-get to install them, a machine's owner is told what is missing.
func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	require.ErrorContains(t, installMissing(t.Context()),
		"these programs are missing: gcc, java, javac, node, python3: install them "+
			"(Debian: apt-get install default-jdk-headless gcc libc6-dev nodejs python3)")
}

func TestMissingProgramsAreInstalled(t *testing.T) {
	// An apt-get that makes a program of each package it is asked for, and notes how it was called.
	dir := t.TempDir()
	script := `#!/bin/sh
echo "$@" >> ` + dir + `/calls
case "$*" in install*) for p in gcc java javac node python3; do echo > ` + dir + `/$p; /bin/chmod +x ` + dir + `/$p; done;; esac
`
	require.NoError(t, os.WriteFile(filepath.Join(dir, "apt-get"), []byte(script), 0o755))
	t.Setenv("PATH", dir)
	require.NoError(t, installMissing(t.Context()))
	require.NoError(t, installMissing(t.Context()), "there is nothing to install any more")
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	require.Equal(t, "update -q\ninstall -q -y --no-install-recommends default-jdk-headless gcc libc6-dev nodejs python3\n", string(calls))
}

func TestVersionNamesBothRevisions(t *testing.T) {
	p := openHere(t)
	version, err := p.pinned()
	require.NoError(t, err)
	revision := p.revision(t.Context())
	require.Equal(t, "sentrymm "+revision+" (gvisor "+version+")", p.versionName(t.Context(), target{}, version))
	require.Contains(t, p.versionName(t.Context(), target{tags: "mmvalidate"}, version), "mmvalidate")
	require.Contains(t, p.versionName(t.Context(), target{stock: true}, version), "unmodified")
}

// The second mod file asks for what gVisor's own asks for, and replaces gVisor by the staged copy.
func TestSecondModFile(t *testing.T) {
	p := openHere(t)
	gvisor, err := p.gvisor(t.Context())
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "second.mod")
	require.NoError(t, p.writeModFile(t.Context(), file, gvisor, "/staged here"))
	mod, err := readMod(t.Context(), file)
	require.NoError(t, err)
	theirs, err := readMod(t.Context(), gvisor.GoMod)
	require.NoError(t, err)
	require.Equal(t, "sentrymm", mod.Module.Path)
	require.Equal(t, append([]requirement{{gvisorPath, gvisor.Version}}, theirs.Require...), mod.Require)
	data, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(data), `replace gvisor.dev/gvisor => "/staged here"`)
}

func TestSecondBuildWaitsForTheFirst(t *testing.T) {
	p := &project{root: t.TempDir()}
	unlock, err := p.lock(t.Context())
	require.NoError(t, err)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.lock(impatient)
	require.ErrorIs(t, err, context.Canceled)
	unlock()
	unlock, err = p.lock(t.Context())
	require.NoError(t, err)
	unlock()
}

func TestReadTestsMakesATable(t *testing.T) {
	events := `{"Action":"run","Test":"TestContainer/systrap/Node"}
{"Action":"output","Test":"TestContainer/systrap/Node","Output":"=== RUN   TestContainer/systrap/Node\n"}
{"Action":"output","Test":"TestContainer/systrap/Node","Output":"--- PASS\n"}
{"Action":"pass","Test":"TestContainer/systrap/Node","Elapsed":1.25}
{"Action":"fail","Test":"TestContainer/ptrace/Node","Elapsed":0.5}
{"Action":"pass","Test":"TestContainer/systrap","Elapsed":2}
`
	var text, table bytes.Buffer
	results, err := readTests(strings.NewReader(events), &text)
	require.NoError(t, err)
	require.Equal(t, "--- PASS\n", text.String())
	results.print(&table)
	require.Equal(t, "in a container   systrap     ptrace\nContainer Node   pass 1.2s   fail 0.5s\n", table.String())
}
