package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// readList reads a list of files, one on a line: where a file belongs below the root of the repository and,
// behind a "=", where it is if it is elsewhere.
func readList(list string) (map[string]string, error) {
	data, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			continue
		}
		at, src, elsewhere := strings.Cut(line, "=")
		if !elsewhere {
			src = at
		}
		if !filepath.IsLocal(at) {
			return nil, fmt.Errorf("%s: %s is not a file of this repository", list, at)
		}
		files[at] = src
	}
	return files, nil
}

// copyTree makes dir a folder with copies of files, by their paths below it, and nothing else. Copies,
// because what Bazel hands out are links, which the go command does not embed, and which lead out of
// the tree to files that nobody declared.
func copyTree(dir string, files map[string]string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for at, src := range files {
		if err := copyFile(filepath.Join(dir, at), src); err != nil {
			return err
		}
	}
	return nil
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
	// Bazel takes the right to write from what it made; tests may want to edit their copy.
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	return err
}
