package main

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// makeFiles writes a small tree.
func makeFiles(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o444))
	}
	return dir
}

// readFiles is the opposite of makeFiles.
func readFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(file)
		name, _ := filepath.Rel(dir, file)
		files[name] = string(data)
		return err
	})
	require.NoError(t, err)
	return files
}

// smallGvisor and smallMM are enough of the two for staging.
func smallGvisor(t *testing.T) string {
	return makeFiles(t, map[string]string{
		"go.mod":                    "module gvisor.dev/gvisor",
		"pkg/sentry/mm/old.go":      "package mm // theirs",
		"pkg/sentry/mm/vma.go":      "package mm // theirs",
		"pkg/sentry/mm/deep/sub.go": "package deep",
		"pkg/sentry/mmtest/a.go":    "package mmtest",
		"pkg/sentry/kernel/task.go": "package kernel",
		"pkg/data/blob.bin":         "\x00\x01",
	})
}

func smallMM(t *testing.T) string {
	return makeFiles(t, map[string]string{
		"vma.go":              "package mm // ours",
		"mmap.go":             "package mm // ours",
		"mmap_test.go":        "package mm",
		"README.md":           "not code",
		"sub/sub.go":          "package sub",
		"fake/fake_test.go":   "package fake",
		"testdata/fuzz/seed":  "x",
		"testdata/program.go": "package main",
	})
}

func stagedFiles() map[string]string {
	return map[string]string{
		"go.mod":                    "module gvisor.dev/gvisor",
		"pkg/sentry/mm/vma.go":      "package mm // ours",
		"pkg/sentry/mm/mmap.go":     "package mm // ours",
		"pkg/sentry/mm/sub/sub.go":  "package sub",
		"pkg/sentry/mmtest/a.go":    "package mmtest",
		"pkg/sentry/kernel/task.go": "package kernel",
		"pkg/data/blob.bin":         "\x00\x01",
	}
}

func mirror(t *testing.T, gvisor, mm, dir string) (changed int) {
	t.Helper()
	l, err := stagedLayout(t.Context(), gvisor, mm)
	require.NoError(t, err)
	changed, err = l.mirror(t.Context(), dir)
	require.NoError(t, err)
	return changed
}

func TestStagingPutsTheFolderInPlaceWithoutItsTests(t *testing.T) {
	dir := t.TempDir()
	mirror(t, smallGvisor(t), smallMM(t), dir)
	require.Equal(t, stagedFiles(), readFiles(t, dir))
}

func TestStagingTwiceChangesNothing(t *testing.T) {
	gvisor, mm, dir := smallGvisor(t), smallMM(t), t.TempDir()
	require.Equal(t, len(stagedFiles()), mirror(t, gvisor, mm, dir))
	require.Zero(t, mirror(t, gvisor, mm, dir))
}

func TestStagingCopiesOnlyWhatChanged(t *testing.T) {
	gvisor, mm, dir := smallGvisor(t), smallMM(t), t.TempDir()
	mirror(t, gvisor, mm, dir)
	// Edited to the same length, a file added, one removed.
	edited := filepath.Join(mm, "mmap.go")
	require.NoError(t, os.Chmod(edited, 0o644))
	require.NoError(t, os.WriteFile(edited, []byte("package mm // OURS"), 0o644))
	require.NoError(t, os.Chtimes(edited, time.Time{}, time.Now().Add(time.Second)))
	require.NoError(t, os.WriteFile(filepath.Join(mm, "new.go"), []byte("package mm"), 0o644))
	require.NoError(t, os.Remove(filepath.Join(mm, "vma.go")))

	require.Equal(t, 3, mirror(t, gvisor, mm, dir))
	want := stagedFiles()
	want["pkg/sentry/mm/mmap.go"] = "package mm // OURS"
	want["pkg/sentry/mm/new.go"] = "package mm"
	delete(want, "pkg/sentry/mm/vma.go")
	require.Equal(t, want, readFiles(t, dir))
}

// Interrupted at any file, staging is complete after the next run, which copies no file twice.
func TestStagingGoesOnWhereItWasInterrupted(t *testing.T) {
	gvisor, mm := smallGvisor(t), smallMM(t)
	for after := range len(stagedFiles()) {
		dir := t.TempDir()
		l, err := stagedLayout(t.Context(), gvisor, mm)
		require.NoError(t, err)
		copied, err := l.mirror(&countdown{t.Context(), after}, dir)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, after, copied)
		require.Equal(t, len(stagedFiles())-after, mirror(t, gvisor, mm, dir))
		require.Equal(t, stagedFiles(), readFiles(t, dir))
	}
}

// A countdown is a context that is cancelled when it was asked n times.
type countdown struct {
	context.Context
	n int
}

func (c *countdown) Err() error {
	if c.n == 0 {
		return context.Canceled
	}
	c.n--
	return nil
}

func TestStagingMendsWhatIsWrong(t *testing.T) {
	gvisor, mm, dir := smallGvisor(t), smallMM(t), t.TempDir()
	mirror(t, gvisor, mm, dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	require.NoError(t, os.WriteFile(at("pkg/sentry/kernel/task.go"), []byte("package k"), 0o644)) // cut short
	require.NoError(t, os.WriteFile(at("pkg/sentry/.staging-1"), []byte("pack"), 0o644))          // killed while copying
	require.NoError(t, os.WriteFile(at("pkg/stray.go"), []byte("package stray"), 0o644))
	require.NoError(t, os.Remove(at("go.mod")))
	require.NoError(t, os.MkdirAll(at("go.mod/folder"), 0o755))
	require.NoError(t, os.RemoveAll(at("pkg/data")))
	require.NoError(t, os.WriteFile(at("pkg/data"), nil, 0o644))
	require.NoError(t, os.Remove(at("pkg/sentry/mmtest/a.go")))
	require.NoError(t, os.Symlink("/etc/passwd", at("pkg/sentry/mmtest/a.go")))

	mirror(t, gvisor, mm, dir)
	require.Equal(t, stagedFiles(), readFiles(t, dir))
	info, err := os.Lstat(at("pkg/sentry/mmtest/a.go"))
	require.NoError(t, err)
	require.True(t, info.Mode().IsRegular())
}

func TestStagingLeavesItsSourcesAlone(t *testing.T) {
	gvisor, mm, dir := smallGvisor(t), smallMM(t), t.TempDir()
	before := readFiles(t, gvisor)
	mirror(t, gvisor, mm, dir)
	staged := filepath.Join(dir, "pkg/sentry/kernel/task.go")
	require.NoError(t, os.WriteFile(staged, []byte("edited by hand"), 0o644))
	require.Equal(t, before, readFiles(t, gvisor))
}

func TestStagingAnEmptyFolderIsRefused(t *testing.T) {
	_, err := stagedLayout(t.Context(), smallGvisor(t), t.TempDir())
	require.ErrorContains(t, err, "holds no Go files")
}
