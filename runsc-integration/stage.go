package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sentrymm/runsc-integration/sandbox"
)

// mmFolder is where the memory manager lives in gVisor's module.
const mmFolder = "pkg/sentry/mm"

// A layout says what a folder has to hold: for each file, by its path below the folder, the file
// it is a copy of.
//
// Copies, because the go command takes neither links out of a module nor (with -overlay) files laid
// over the module cache, and because the module cache must stay as it is.
type layout map[string]string

// stagedLayout is gVisor's module with the package in mm where its own memory manager was.
func stagedLayout(ctx context.Context, gvisor, mm string) (layout, error) {
	l := layout{}
	err := l.add(ctx, "", gvisor, func(path string, d fs.DirEntry) bool {
		return path != mmFolder
	})
	if err != nil {
		return nil, err
	}
	before := len(l)
	err = l.add(ctx, mmFolder, mm, func(path string, d fs.DirEntry) bool {
		if d.IsDir() {
			return d.Name() != "testdata" && holdsCode(filepath.Join(mm, path))
		}
		return strings.HasSuffix(path, ".go") && !isTest(d)
	})
	if err == nil && len(l) == before {
		err = fmt.Errorf("%s holds no Go files to put in place of gVisor's %s", mm, mmFolder)
	}
	return l, err
}

func isTest(d fs.DirEntry) bool {
	return !d.IsDir() && strings.HasSuffix(d.Name(), "_test.go")
}

// holdsCode says whether a folder has Go files that are not tests. One that has none exists for the
// tests of the package above it.
func holdsCode(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true // so that adding it reports the error
	}
	for _, d := range entries {
		if strings.HasSuffix(d.Name(), ".go") && !isTest(d) || d.IsDir() && holdsCode(filepath.Join(dir, d.Name())) {
			return true
		}
	}
	return false
}

// add puts the files below src at the path at. Whatever keep refuses is left out, a folder with all
// that is in it; keep sees paths below src.
func (l layout) add(ctx context.Context, at, src string, keep func(path string, d fs.DirEntry) bool) error {
	return filepath.WalkDir(src, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		path, err := filepath.Rel(src, file)
		if err != nil || path == "." {
			return err
		}
		switch {
		case !keep(path, d):
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			l[filepath.Join(at, path)] = file
		}
		return nil
	})
}

// mirror makes dir hold what l says and nothing else, and returns how many files it had to copy or
// remove. A file that has the size and the time of its original is taken to be its copy.
//
// Each file appears in dir by a rename, complete and with its time set, so wherever mirror is
// interrupted, the next call sees exactly what is missing.
func (l layout) mirror(ctx context.Context, dir string) (changed int, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	present := map[string]bool{}
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		path, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		src, wanted := l[path]
		if d.IsDir() {
			if !wanted {
				return nil
			}
			changed++
			if err := os.RemoveAll(file); err != nil {
				return err
			}
			return fs.SkipDir
		}
		if wanted && sameFile(src, d) {
			present[path] = true
			return nil
		}
		if wanted && d.Type().IsRegular() {
			return nil // the copy is renamed over it
		}
		changed++
		return os.Remove(file)
	})
	if err != nil {
		return changed, err
	}
	for path, src := range l {
		if present[path] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return changed, err
		}
		if err := copyFile(filepath.Join(dir, path), src); err != nil {
			return changed, sandbox.NoSpace(err, dir)
		}
		changed++
	}
	return changed, nil
}

func sameFile(src string, d fs.DirEntry) bool {
	have, err := d.Info()
	if err != nil || !have.Mode().IsRegular() {
		return false
	}
	want, err := os.Stat(src)
	return err == nil && want.Size() == have.Size() && want.ModTime().Equal(have.ModTime())
}

func copyFile(dst, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	out, err := os.CreateTemp(filepath.Dir(dst), ".staging-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // fails once it is renamed
	_, err = io.Copy(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(out.Name(), 0o644)
	}
	if err == nil {
		err = os.Chtimes(out.Name(), info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = os.Rename(out.Name(), dst)
	}
	return err
}
