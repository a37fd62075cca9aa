package mm

import (
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
)

// The files failure_*_test.go claim: an operation happens or it does not. Whatever
// step of it fails, with whatever around it, vmas, pages and what is in them,
// registrations, references, counters and host mappings are what they were, or what
// the documentation of that operation says. This file has what they share: scenes,
// in which operations fail, and what is compared.

// scene is an address space in which ar is going to be replaced. Its edges lie
// within mappings, or between them:
//
//	edge is 4 pages          ar
//	base      |--edge--|------------|--edge--|
//
// Files are mapped so that offset 0 is at base.
type scene struct {
	*testMM
	f, g *testMappable
	ar   hostarch.AddrRange
	all  hostarch.AddrRange // ar and both edges
}

const edge = 4 * pageSize

// sceneSizes are the sizes of ar: what one step does, and what takes two.
var sceneSizes = []uint64{12 * pageSize, pieceSize + 4*pageSize}

func newScene(t testing.TB, n uint64, mods ...func(*mmConfig)) *scene {
	m := newTestMM(t, mods...)
	size := n + 2*edge
	return &scene{
		testMM: m,
		f:      newTestMappable(t, m.mf, 2*size),
		g:      newTestMappable(t, m.mf, 2*size),
		ar:     rangeAt(m.base+edge, n),
		all:    rangeAt(m.base, size),
	}
}

// put maps ar populated, at the right offset if file is not nil.
func (s *scene) put(ar hostarch.AddrRange, at hostarch.AccessType, file func(*testMappable, uint64) mmapMod, mods ...mmapMod) {
	s.t.Helper()
	if file != nil {
		mods = append(mods, file(s.f, uint64(ar.Start-s.base)))
	}
	s.mustMap(uint64(ar.Length()), at, append(mods, fixedAt(ar.Start), populated)...)
}

// dirty gives the first half of ar, but no more than 8 pages, private copies. That
// the mapping is executable keeps the pages around them from being copied, too.
func (s *scene) dirty(ar hostarch.AddrRange) {
	s.t.Helper()
	s.mustFault(ar.Start, min(roundUp(uint64(ar.Length())/2), 8*pageSize), hostarch.Write)
}

// newcomer is a mapping that is to come to ar.
type newcomer struct {
	name string
	at   hostarch.AccessType
	file func(*testMappable, uint64) mmapMod // nil for anonymous memory
	own  bool                                // it maps g; otherwise f, as the scene does
}

var newcomers = []newcomer{
	{"anonymous", hostarch.ReadWrite, nil, false},
	{"shared", hostarch.ReadWrite, sharedFile, false},
	{"private", hostarch.ReadWrite, privateFile, false},
	{"other file", hostarch.Read, sharedFile, true},
}

// mods are the options for putting n at s.ar.
func (n newcomer) mods(s *scene, more ...mmapMod) []mmapMod {
	f := s.f
	if n.own {
		f = s.g
	}
	if n.file != nil {
		more = append(more, n.file(f, uint64(s.ar.Start-s.base)))
	}
	return append(more, fixedAt(s.ar.Start))
}

// come puts n at s.ar.
func (n newcomer) come(s *scene, more ...mmapMod) error {
	_, err := s.mmap(uint64(s.ar.Length()), n.at, n.mods(s, more...)...)
	return err
}

// backdrops are what may be at s.ar and around.
var backdrops = []struct {
	name string
	set  func(s *scene, n newcomer)
}{
	{"hole", func(*scene, newcomer) {}},
	{"anonymous", func(s *scene, _ newcomer) { s.put(s.all, hostarch.ReadWrite, nil) }},
	{"shared file", func(s *scene, _ newcomer) { s.put(s.all, hostarch.ReadWrite, sharedFile) }},
	{"private file", func(s *scene, _ newcomer) {
		s.put(s.all, hostarch.AnyAccess, privateFile)
		s.dirty(s.all)
	}},
	//	|--anon rw--|--shared--|--private--|--anon r--|
	//	       |----------------ar-----------------|
	{"several", func(s *scene, _ newcomer) {
		k := hostarch.Addr(hostarch.PageSize) * (s.ar.Length() / (4 * pageSize))
		a, b, c := s.ar.Start+k, s.ar.Start+2*k, s.ar.Start+3*k
		s.put(hostarch.AddrRange{Start: s.all.Start, End: a}, hostarch.ReadWrite, nil)
		s.put(hostarch.AddrRange{Start: a, End: b}, hostarch.ReadWrite, sharedFile)
		private := hostarch.AddrRange{Start: b, End: c}
		s.put(private, hostarch.AnyAccess, privateFile)
		s.dirty(private)
		s.put(hostarch.AddrRange{Start: c, End: s.all.End}, hostarch.Read, nil)
	}},
	// The newcomer merges with both neighbours.
	//	|--like new--|--anon r--|--like new--|
	//	             |----ar----|
	{"between its like", func(s *scene, n newcomer) {
		s.put(s.ar, hostarch.Read, nil)
		for _, ar := range []hostarch.AddrRange{{Start: s.all.Start, End: s.ar.Start}, {Start: s.ar.End, End: s.all.End}} {
			there := *s
			there.ar = ar
			if err := n.come(&there, populated); err != nil {
				s.t.Fatal(err)
			}
		}
	}},
}

// eachScene runs test in a subtest for each backdrop, newcomer and size.
func eachScene(t *testing.T, test func(t *testing.T, n newcomer, make func(t testing.TB) *scene)) {
	for _, b := range backdrops {
		for _, n := range newcomers {
			for _, size := range sceneSizes {
				t.Run(fmt.Sprintf("%s over %s, %#x bytes", n.name, b.name, size), func(t *testing.T) {
					test(t, n, func(t testing.TB) *scene {
						s := newScene(t, size)
						s.as.lax = true // checked by comparing, and slow for so many pages
						b.set(s, n)
						s.stamp()
						s.as.forget()
						return s
					})
				})
			}
		}
	}
}

// stamp writes to each resident page.
func (m *testMM) stamp() {
	for i, page := range m.residentPages() {
		fillFile(m.t, page.file, page.fr.Start, fmt.Appendf(nil, "page %d", i))
	}
}

type residentPage struct {
	addr hostarch.Addr
	file memmap.File
	fr   memmap.FileRange
}

// residentPages returns all pages that have pmas.
func (m *testMM) residentPages() []residentPage {
	m.activeMu.RLock()
	defer m.activeMu.RUnlock()
	var pages []residentPage
	for r, p := range m.pmas.All() {
		for a := hostarch.Addr(r.Start); uint64(a) < r.End; a += pageSize {
			pages = append(pages, residentPage{a, p.file, p.fileRange(r.Start, rangeAt(a, pageSize))})
		}
	}
	return pages
}

// captureAll is capture with what is in resident pages, as a checksum for each run of
// them.
func (m *testMM) captureAll() captured {
	c := m.capture()
	name := m.name + " contents"
	var run hostarch.AddrRange
	var sum uint32
	flush := func() {
		if run.Length() != 0 {
			c[name] = append(c[name], fmt.Sprintf("%v %08x", run, sum))
		}
	}
	for _, page := range m.residentPages() {
		if page.addr != run.End {
			flush()
			run, sum = rangeAt(page.addr, 0), 0
		}
		run.End += pageSize
		sum = crc32.Update(sum, crc32.IEEETable, fileBytes(m.t, page.file, memmap.FileRange{Start: page.fr.Start, End: page.fr.Start + 16}))
	}
	flush()
	return c
}

// only returns the sections of c whose names end in one of kinds.
func (c captured) only(kinds ...string) captured {
	rest := captured{}
	for name, lines := range c {
		for _, kind := range kinds {
			if strings.HasSuffix(name, kind) {
				rest[name] = lines
			}
		}
	}
	return rest
}

// mustBeSettled checks that m is in order and that no operation left it locked or
// frozen.
func (m *testMM) mustBeSettled() {
	m.t.Helper()
	for name, mu := range map[string]interface {
		TryLock() bool
		Unlock()
	}{"mappingMu": &m.mappingMu, "activeMu": &m.activeMu} {
		if !mu.TryLock() {
			m.t.Fatalf("%s was left locked", name)
		}
		mu.Unlock()
	}
	if m.frozen != nil {
		m.t.Fatalf("%d ranges were left frozen", len(m.frozen.ranges))
	}
	if !m.readers.idle() {
		m.t.Fatal("identities wait to be released though nobody reads")
	}
	m.check()
}

// mustBeAsBefore checks that nothing of before has changed, what the host has
// mapped included.
func (m *testMM) mustBeAsBefore(before captured) {
	m.t.Helper()
	m.mustBeSettled()
	mustBeEqual(m.t, before, m.captureAll())
}

// failAt makes the n-th call of op fail. hit ends that and returns whether it has
// come to it.
func failAt(h *hooks, op string, n int, err error) (hit func() bool) {
	armed, done := true, false
	h.on(op, n, nil, func(any) error {
		if !armed {
			return nil
		}
		done = true
		return err
	})
	return func() bool {
		armed = false
		return done
	}
}

// everyCall runs test in a subtest with n = 1, 2 and so on, until it returns false:
// the n-th call that was to fail did not come any more. Running dry at once means
// that the test tests nothing, unless that is allowed.
func everyCall(t *testing.T, mayBeNone bool, test func(t *testing.T, n int) bool) {
	t.Helper()
	more := true
	n := 0
	for more && !t.Failed() {
		n++
		t.Run(fmt.Sprintf("call %d", n), func(t *testing.T) { more = test(t, n) })
	}
	if n == 1 && !mayBeNone {
		t.Error("nothing was called that could have failed")
	}
}

// newScarceFile returns a memory file that cannot grow, and a function that uses all
// of it up but for spare bytes. A memory file grows by gigabytes and takes what is
// free in those first, so both are needed to make Allocate fail; growing fails
// because the memfd is sealed (ftruncate says EPERM).
func newScarceFile(t testing.TB) (mf *pgalloc.MemoryFile, leave func(spare uint64)) {
	t.Helper()
	fd, err := unix.MemfdCreate("mm-scarce", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatalf("memfd_create: %v", err)
	}
	mf, err = pgalloc.NewMemoryFile(os.NewFile(uintptr(fd), "mm-scarce"), pgalloc.MemoryFileOpts{DisableMemoryAccounting: true, DisableIMAWorkAround: true})
	if err != nil {
		t.Fatalf("NewMemoryFile: %v", err)
	}
	w := worldOf(t)
	mf.MarkSavable()
	w.name(mf, "file")
	w.files = append(w.files, &testFile{t, mf})
	var held []memmap.FileRange
	w.atEnd(func() {
		for _, fr := range held {
			mf.DecRef(fr)
		}
	})
	take := func(n uint64) bool {
		fr, err := mf.Allocate(n, pgalloc.AllocOpts{})
		if err == nil {
			held = append(held, fr)
		}
		return err == nil
	}
	return mf, func(spare uint64) {
		t.Helper()
		kept := len(held)
		if spare != 0 && !take(spare) {
			t.Fatalf("cannot set %#x bytes aside", spare)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
			t.Fatalf("F_SEAL_GROW: %v", err)
		}
		for n := uint64(1 << 30); n >= pageSize; {
			if !take(n) {
				n /= 2
			}
		}
		if spare != 0 {
			mf.DecRef(held[kept])
			held = append(held[:kept], held[kept+1:]...)
		}
	}
}
