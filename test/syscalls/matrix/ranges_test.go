// Every call that takes a range, with every place and every length.
package matrix

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

func TestRanges(t *testing.T) {
	s := newScene(t)
	for _, f := range forms {
		t.Run(f.name, func(t *testing.T) {
			t.Run("ordinary", func(t *testing.T) { s.overPlaces(t, f, ordinary) })
			t.Run("huge", func(t *testing.T) { s.overPlaces(t, f, huge) })
		})
	}
}

// overPlaces is a test for each place, of all lengths there.
func (s *scene) overPlaces(t *testing.T, f form, of []length) {
	for _, p := range places {
		t.Run(p.name, func(t *testing.T) {
			s.in(t)
			var line []string
			for _, n := range of {
				addr := p.address(s)
				if f.wrecks && endangers(addr, n.bytes) || f.beyond && n.bytes >= 1<<30 && addr+n.bytes >= addr && addr < top {
					continue
				}
				line = append(line, n.name+"="+s.try(f, addr, n.bytes))
			}
			if f.quiet {
				line = append(line, "then="+s.outcome("", false, false))
			}
			kit.Say(t, "%s", strings.Join(line, " "))
		})
	}
}

// try makes the call, in a fresh scene unless the form is quiet, and shows what came of it.
func (s *scene) try(f form, addr, n uintptr) string {
	s.prepare()
	r := call(f.nr, f.args(s, addr, n)...)
	shown := s.shown(f, r, n)
	switch {
	case f.quiet:
		return shown
	case f.locks && r.Errno == unix.EINVAL, f.loses && !r.OK():
		s.touched = true
		return shown
	case f.locks:
		s.touched = true
		if locked := s.locked(); locked != standardLocks {
			shown += s.mark(locked)
		}
		return shown
	}
	return s.outcome(shown, !r.OK(), !f.partial)
}

// shown is a result by name. What the kernel mapped outside of the arena is unmapped.
func (s *scene) shown(f form, r kit.Result, n uintptr) string {
	switch {
	case !r.OK():
		return kit.ErrnoName(r.Errno)
	case !f.places && r.Value == 0:
		return "ok"
	case !f.places:
		return fmt.Sprint(int(r.Value))
	case s.a.Where(r.Value) != "outside":
		return s.a.Where(r.Value)
	}
	call(unix.SYS_MUNMAP, r.Value, n)
	return "elsewhere"
}

// standardLocks is locked of a fresh scene.
const standardLocks = "p36-p40"

// locked are the pages that are locked: what MADV_DONTNEED refuses to drop. It drops the others.
func (s *scene) locked() string {
	var found []string
	start := -1
	for page := range 53 {
		is := page < 52 && call(unix.SYS_MADVISE, s.a.Page(page), P, unix.MADV_DONTNEED).Errno == unix.EINVAL
		switch {
		case is && start < 0:
			start = page
		case !is && start >= 0:
			found = append(found, fmt.Sprintf("p%d-p%d", start, page))
			start = -1
		}
	}
	return strings.Join(found, ",")
}
