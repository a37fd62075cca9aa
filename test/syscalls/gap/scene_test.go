// Package gap is the litmus of MAP_FIXED: while threads replace mappings, others never find an address of the
// range unmapped, and never a value or a line of /proc/self/maps that was not there.
//
// A page is in one of two states, old and new, that the writers alternate. What Linux promises, and what
// is claimed, is told page by page: no access faults, no system call returns EFAULT, /proc/self/maps
// covers every page, and value, permissions, file and offset of a page are those of one of its states.
package gap

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

// A state is what a page of the region can be mapped to.
type state struct {
	name   string
	flags  int
	file   bool
	offset int // of the file, in pages
}

var (
	anonymous   = state{name: "anonymous", flags: unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}
	sharedAnon  = state{name: "shared anonymous", flags: unix.MAP_SHARED | unix.MAP_ANONYMOUS}
	privateFile = state{name: "private file", flags: unix.MAP_PRIVATE, file: true}
	sharedFile  = state{name: "shared file", flags: unix.MAP_SHARED, file: true}
	otherOffset = state{name: "shared file elsewhere", flags: unix.MAP_SHARED, file: true, offset: 5}
	privateElse = state{name: "private file elsewhere", flags: unix.MAP_PRIVATE, file: true, offset: 5}
)

// mark is what writers store in private pages, which is to be gone with them.
const mark = 0x6d61726b6d61726b

// A line is what /proc/self/maps says of one page.
type line struct {
	perms  string
	file   bool
	offset int // in pages
}

// A scene is a region of an arena, all of it mapped, and the states that its pages may be in.
type scene struct {
	*kit.Arena
	fd     int
	states []state
	// watched are the pages that watchers look at; values and lines what they may find there.
	watched []int
	values  map[int]map[uint64]bool
	lines   map[int]map[line]bool

	replaced atomic.Int64 // mappings
	looked   [watcherCount]atomic.Int64
	stop     atomic.Bool
	problem  atomic.Pointer[string]
}

// newScene is a region of so many pages, all in the first of the states.
func newScene(t *testing.T, pages int, d kit.Dir, states ...state) *scene {
	s := &scene{
		Arena:  kit.NewArena(t, pages),
		fd:     d.File(t, pages+8),
		states: states,
		values: map[int]map[uint64]bool{},
		lines:  map[int]map[line]bool{},
	}
	for i := 0; i < pages; i += max(1, pages/12) {
		s.watched = append(s.watched, i)
	}
	for i := range pages {
		s.values[i] = map[uint64]bool{}
		s.lines[i] = map[line]bool{}
		for _, st := range states {
			s.allow(i, st)
		}
	}
	s.put(states[0], 0, pages, 0)
	require.Nil(t, s.problem.Load())
	return s
}

// allow adds what a page may be in a state.
func (s *scene) allow(page int, st state) {
	if st.file {
		s.values[page][uint64(kit.PageByte(page+st.offset))*0x0101010101010101] = true
	} else {
		s.values[page][0] = true
	}
	kind := "s"
	if st.flags&unix.MAP_PRIVATE != 0 {
		s.values[page][mark] = true
		kind = "p"
	}
	s.lines[page][line{"rw-" + kind, st.file, st.lineOffset(page)}] = true
}

// lineOffset is the offset of a page as maps has it, in pages.
func (st state) lineOffset(page int) int {
	if st.file {
		return page + st.offset
	}
	return 0
}

// put replaces pages [first, end) in one call. flags are added.
func (s *scene) put(st state, first, end, flags int) {
	fd, offset := -1, 0
	if st.file {
		fd, offset = s.fd, first+st.offset
	}
	r := kit.Me.Mmap(s.Page(first), kit.Len(end-first), kit.RW, st.flags|unix.MAP_FIXED|flags, fd, int64(kit.Len(offset)))
	if !r.OK() {
		s.report("mmap of pages [%d,%d) as %s: %v", first, end, st.name, r)
	}
	s.replaced.Add(1)
}

// spoil stores the mark in a page, if that is private.
func (s *scene) spoil(st state, page int) {
	if st.flags&unix.MAP_PRIVATE == 0 {
		return
	}
	if a := kit.Me.Store64(s.Page(page), mark); a.Faulted() {
		s.report("writing to page %d: %s", page, s.Describe(a))
	}
}

// report stops the scene with the first problem.
func (s *scene) report(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.problem.CompareAndSwap(nil, &text)
	s.stop.Store(true)
}

// A scene goes on until its writers have replaced and each of its watchers has looked so often.
// Large ones are slow.
func (s *scene) enough() (replacements, looks int64) {
	switch {
	case !kit.Long():
		return 60, 10
	case s.Pages > 100:
		return 2_000, 200
	}
	// There are 95 scenes of small regions: together more than ten million.
	return 110_000, 5_000
}

// run lets writers replace while watchers watch. Each writer's step is called with 0, 1, 2 and so on.
func (s *scene) run(t *testing.T, writers ...func(round int)) {
	t.Helper()
	replacements, looks := s.enough()
	var threads sync.WaitGroup
	for i, watch := range watchers {
		threads.Go(func() {
			for !s.stop.Load() {
				watch(s)
				s.looked[i].Add(1)
				s.finish(replacements, looks)
				// Those that are ahead leave the processors to the writers.
				for s.looked[i].Load()*replacements > s.replaced.Load()*looks && !s.stop.Load() {
					time.Sleep(50 * time.Microsecond)
				}
			}
		})
	}
	for _, step := range writers {
		threads.Go(func() {
			for round := 0; !s.stop.Load(); round++ {
				step(round)
				s.finish(replacements, looks)
			}
		})
	}
	threads.Wait()
	t.Logf("%d replacements", s.replaced.Load())
	if p := s.problem.Load(); p != nil {
		t.Fatal(*p)
	}
}

// finish stops the scene when all have done enough.
func (s *scene) finish(replacements, looks int64) {
	for i := range s.looked {
		if s.looked[i].Load() < looks {
			return
		}
	}
	if s.replaced.Load() >= replacements {
		s.stop.Store(true)
	}
}
