package kit

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Line is one of /proc/[pid]/maps.
type Line struct {
	Start, End uintptr
	Perms      string
	Offset     uint64 // in bytes
	Device     string
	Inode      uint64
	Name       string // as printed, with " (deleted)"
}

// ParseMaps parses the whole of /proc/[pid]/maps.
func ParseMaps(data []byte) ([]Line, error) {
	var lines []Line
	for scanner := bufio.NewScanner(bytes.NewReader(data)); scanner.Scan(); {
		line, err := parseLine(scanner.Text())
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

func parseLine(text string) (Line, error) {
	var l Line
	// Five fields, then spaces, then a name that may hold spaces itself.
	if _, err := fmt.Sscanf(text, "%x-%x %s %x %s %d", &l.Start, &l.End, &l.Perms, &l.Offset, &l.Device, &l.Inode); err != nil {
		return l, fmt.Errorf("a line of maps that cannot be read: %q: %w", text, err)
	}
	rest := text
	for range 5 {
		_, rest, _ = strings.Cut(rest, " ")
	}
	l.Name = strings.TrimLeft(rest, " ")
	return l, nil
}

// Maps are the lines that lie in the arena, of an actor's process. Lines that reach out of it are
// cut off at its ends.
func (a *Arena) Maps(t testing.TB, actor *Actor) []Line {
	t.Helper()
	data, err := os.ReadFile(actor.Proc() + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	all, err := ParseMaps(data)
	if err != nil {
		t.Fatal(err)
	}
	return a.Clip(all)
}

// Clip returns the lines that lie in the arena, cut off at its ends.
func (a *Arena) Clip(lines []Line) []Line {
	var inside []Line
	for _, l := range lines {
		if l.End <= a.Base || l.Start >= a.End() {
			continue
		}
		l.Start, l.End = max(l.Start, a.Base), min(l.End, a.End())
		inside = append(inside, l)
	}
	return inside
}

// Show is a line for a transcript: pages of the arena, permissions, offset in pages, and the last part
// of the name. Devices and inodes are the machine's own and left out.
func (a *Arena) Show(l Line) string {
	text := fmt.Sprintf("%s-%s %s %d", a.Where(l.Start), a.Where(l.End), l.Perms, l.Offset/uint64(PageSize))
	if l.Name == "" {
		return text
	}
	name := l.Name
	if strings.HasPrefix(name, "/") {
		name = filepath.Base(name)
	}
	return text + " " + name
}

// Layout is Maps, shown.
func (a *Arena) Layout(t testing.TB, actor *Actor) []string {
	t.Helper()
	var layout []string
	for _, l := range a.Maps(t, actor) {
		layout = append(layout, a.Show(l))
	}
	return layout
}

// Smaps are the entries of /proc/[pid]/smaps that begin in the arena: by first page, field by field
// ("Rss" → "4 kB", "VmFlags" → "rd wr mr").
func (a *Arena) Smaps(t testing.TB, actor *Actor) map[int]map[string]string {
	t.Helper()
	file, err := os.Open(actor.Proc() + "/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	entries := map[int]map[string]string{}
	var entry map[string]string
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		text := scanner.Text()
		if key, value, ok := strings.Cut(text, ":"); ok && !strings.Contains(key, " ") {
			if entry != nil {
				entry[key] = strings.TrimSpace(value)
			}
			continue
		}
		l, err := parseLine(text)
		if err != nil {
			t.Fatal(err)
		}
		entry = nil
		if l.Start >= a.End() {
			break // the rest takes the kernel long, and is the runtime's
		}
		if l.Start >= a.Base {
			entry = map[string]string{}
			entries[int(l.Start-a.Base)/PageSize] = entry
		}
	}
	return entries
}

// Status is a field of /proc/[pid]/status of an actor, as in "VmLck" → "4 kB", or "absent".
func Status(t testing.TB, actor *Actor, field string) string {
	t.Helper()
	return Statuses(t, actor, field)[0]
}

// Statuses is Status for several fields at one moment: Linux counts pages processor by processor, and adds up anew each
// time.
func Statuses(t testing.TB, actor *Actor, fields ...string) []string {
	t.Helper()
	data, err := os.ReadFile(actor.Proc() + "/status")
	if err != nil {
		t.Fatal(err)
	}
	values := make([]string, len(fields))
	for i, field := range fields {
		values[i] = "absent"
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(line, ":"); ok && key == field {
				values[i] = strings.TrimSpace(value)
			}
		}
	}
	return values
}
