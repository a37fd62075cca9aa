package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
)

// Claims: a move that keeps the size takes all mappings of the range along, with the
// holes between them, and nobody sees some of them moved and others not. If one cannot
// move, those before it have, as in Linux, and nothing else has changed but what that
// one's destination held. What is "Linux 6.18" was printed by programs there.

// several is a range of 16 pages and another one of the same size that is full.
//
//	src  |ff|..|aa|p|...........|gg|..|    f, g: shared; a: anonymous; p: private file
//	dst  |dddddddddddddddddddddddddddd|    d: anonymous, one page more at either side
type several struct {
	*testMM
	mover    context.Context // who moves
	f, g     *testMappable
	src, dst hostarch.AddrRange
}

const severalSize = 16 * pageSize

func newSeveral(t testing.TB) *several {
	m := newTestMM(t)
	s := &several{
		testMM: m,
		mover:  m.ctx,
		f:      newTestMappable(t, m.mf, severalSize),
		g:      newTestMappable(t, m.mf, severalSize),
		src:    rangeAt(m.base, severalSize),
		dst:    rangeAt(m.base+64*pageSize, severalSize),
	}
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(s.page(0)), sharedFile(s.f, 0), populated)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(s.page(4)), populated)
	m.mustMap(pageSize, hostarch.AnyAccess, fixedAt(s.page(6)), privateFile(s.f, 6*pageSize), populated)
	m.mustFault(s.page(6), pageSize, hostarch.Write)
	m.mustMap(2*pageSize, hostarch.Read, fixedAt(s.page(12)), sharedFile(s.g, 0), populated)
	m.mustMap(severalSize+2*pageSize, hostarch.ReadWrite, fixedAt(s.dst.Start-pageSize), populated)
	m.stamp()
	m.as.forget()
	return s
}

// page returns the address of a page of the source.
func (s *several) page(i int) hostarch.Addr { return s.src.Start + hostarch.Addr(i)*pageSize }

// parts are what is mapped at the source.
func (s *several) parts() []hostarch.AddrRange {
	return []hostarch.AddrRange{rangeAt(s.page(0), 2*pageSize), rangeAt(s.page(4), 2*pageSize), rangeAt(s.page(6), pageSize), rangeAt(s.page(12), 2*pageSize)}
}

// moveTo moves ar, a part of the source, or all of it.
func (s *several) moveTo(ar hostarch.AddrRange) error {
	_, err := s.MRemap(s.mover, ar.Start, uint64(ar.Length()), uint64(ar.Length()), MRemapOpts{Move: MRemapMustMove, NewAddr: s.dst.Start + (ar.Start - s.src.Start)})
	return err
}

// unmapTarget unmaps where ar, a part of the source, would go.
func (s *several) unmapTarget(ar hostarch.AddrRange) {
	s.mustUnmap(s.dst.Start+(ar.Start-s.src.Start), uint64(ar.Length()))
}

// The twin has its mappings moved one by one. (Alone, a small one is mapped by the host where it went.)
func TestRemapMovesSeveralMappingsAsIfOneByOne(t *testing.T) {
	for name, ar := range map[string]struct{ from, to int }{"all": {0, 16}, "from within one to within another": {1, 13}, "adjacent": {4, 7}} {
		t.Run(name, func(t *testing.T) {
			var want captured
			t.Run("twin", func(t *testing.T) {
				s := newSeveral(t)
				for _, part := range s.parts() {
					if part = part.Intersect(hostarch.AddrRange{Start: s.page(ar.from), End: s.page(ar.to)}); part.Length() == 0 {
						continue
					}
					if err := s.moveTo(part); err != nil {
						t.Fatal(err)
					}
				}
				want = s.captureAll().without("host")
			})
			t.Run("at once", func(t *testing.T) {
				s := newSeveral(t)
				if err := s.moveTo(hostarch.AddrRange{Start: s.page(ar.from), End: s.page(ar.to)}); err != nil {
					t.Fatal(err)
				}
				mustBeEqual(t, want, s.captureAll().without("host"))
				s.mustBeSettled()
			})
		})
	}
}

func TestRemapOfSeveralBeginsWithAMapping(t *testing.T) {
	s := newSeveral(t)
	before := s.captureAll()
	for _, ar := range []hostarch.AddrRange{{Start: s.page(2), End: s.page(16)}, {Start: s.page(7), End: s.page(12)}, {Start: s.page(14), End: s.page(16)}} {
		mustFailWith(t, "Linux 6.18", s.moveTo(ar), linuxerr.EFAULT)
	}
	s.mustBeAsBefore(before)
}

// A change of size is for one mapping, but for what shrinking cuts off.
func TestRemapOfSeveralChangesNoSize(t *testing.T) {
	for _, c := range []struct {
		from, to uint64
		want     error
	}{{7, 6, linuxerr.EFAULT}, {7, 8, linuxerr.EFAULT}, {7, 2, nil}} {
		s := newSeveral(t)
		before := s.captureAll()
		_, err := s.MRemap(s.ctx, s.src.Start, c.from*pageSize, c.to*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: s.dst.Start})
		if err != c.want {
			t.Errorf("from %d to %d pages: %v; Linux 6.18: %v", c.from, c.to, err, c.want)
		}
		if c.want != nil {
			s.mustBeAsBefore(before)
		}
	}
}

// Nothing grows, so no limit is asked.
func TestRemapOfSeveralIgnoresLimits(t *testing.T) {
	s := newSeveral(t)
	if err := s.MLock(s.ctx, s.page(4), 3*pageSize, memmap.MLockEager); err != nil {
		t.Fatal(err)
	}
	for _, l := range []limits.LimitType{limits.AS, limits.Data, limits.MemoryLocked} {
		s.ctx.limit(l, 1)
	}
	if err := s.moveTo(s.src); err != nil {
		t.Errorf("got %v; Linux 6.18: nil", err)
	}
	s.check()
}

// The twin moves what comes before, and unmaps the destination of the one that fails.
func TestRemapOfSeveralStopsAtTheOneThatFails(t *testing.T) {
	for n, failing := range []int{0, 2, 3} { // those that are files'
		var want captured
		t.Run("twin", func(t *testing.T) {
			s := newSeveral(t)
			parts := s.parts()
			for _, part := range parts[:failing] {
				if err := s.moveTo(part); err != nil {
					t.Fatal(err)
				}
			}
			s.unmapTarget(parts[failing])
			want = s.captureAll().without("host")
		})
		t.Run("failed", func(t *testing.T) {
			s := newSeveral(t)
			if f := s.f; failing == 3 {
				s.g.fail("CopyMapping", 1, linuxerr.ENFILE)
			} else {
				f.fail("CopyMapping", 1+n, linuxerr.ENFILE)
			}
			mustFailWith(t, "the move", s.moveTo(s.src), linuxerr.ENFILE)
			mustBeEqual(t, want, s.captureAll().without("host"))
			s.mustBeSettled()
		})
	}
}

// SysV shared memory and /dev/zero move alone. Alone means that the range holds
// nothing else, not even a hole.
func TestSomeMappingsMoveAloneOnly(t *testing.T) {
	zero := func(s *several) {
		id := newTestIdentity(s.t, "/dev/zero")
		s.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(s.page(4)), func(o *memmap.MMapOpts) { o.MappingIdentity = id }, populated)
		id.close()
	}
	segment := func(s *several) {
		segs := newSegments(trapMM{s.testMM})
		seg := segs.create(2 * pageSize)
		s.mustUnmap(s.page(4), 2*pageSize)
		segs.attach(seg, s.page(4), false)
		s.mover = segs.ctx
	}
	for name, put := range map[string]func(*several){"/dev/zero": zero, "SysV shared memory": segment} {
		t.Run(name, func(t *testing.T) {
			for what, c := range map[string]struct {
				from, to, moved int
				want            error
			}{
				"among others":   {0, 16, 1, linuxerr.EFAULT},
				"before a hole":  {4, 16, 0, linuxerr.EFAULT},
				"alone":          {4, 6, 1, nil},
				"a part of it":   {5, 6, 1, nil},
				"with the first": {0, 6, 1, linuxerr.EFAULT},
			} {
				t.Run(what, func(t *testing.T) {
					s := newSeveral(t)
					put(s)
					s.mustUnmap(s.page(6), pageSize)
					vmas := s.vmas.Snapshot()
					if err := s.moveTo(hostarch.AddrRange{Start: s.page(c.from), End: s.page(c.to)}); err != c.want {
						t.Errorf("got %v; Linux 6.18: %v", err, c.want)
					}
					s.check()
					if moved := s.VirtualMemorySizeRange(s.src) < vmas.Covered(treeRange(s.src)); moved != (c.moved != 0) {
						t.Errorf("something has moved: %t", moved)
					}
					if left := s.VirtualMemorySizeRange(rangeAt(s.page(4), 2*pageSize)); c.want != nil && left != 2*pageSize {
						t.Errorf("of the one that moves alone %#x bytes are left", left)
					}
				})
			}
		})
	}
}

// One publish: whoever looks sees all at the source, or all at the destination.
func TestRemapOfSeveralIsSeenAtOnce(t *testing.T) {
	for _, c := range []struct {
		f    func(s *several) *testMappable
		when string
		n    int
		at   func(s *several) hostarch.AddrRange
	}{
		{func(s *several) *testMappable { return s.f }, "CopyMapping", 1, func(s *several) hostarch.AddrRange { return s.src }},
		{func(s *several) *testMappable { return s.g }, "CopyMapping", 1, func(s *several) hostarch.AddrRange { return s.src }},
		{func(s *several) *testMappable { return s.f }, "RemoveMapping", 1, func(s *several) hostarch.AddrRange { return s.dst }},
		{func(s *several) *testMappable { return s.g }, "RemoveMapping", 1, func(s *several) hostarch.AddrRange { return s.dst }},
	} {
		s := newSeveral(t)
		p := c.f(s).pauseAt(c.when, c.n)
		move := spawn(t, "mremap", func() error { return s.moveTo(s.src) })
		p.wait()
		want := c.at(s)
		for _, part := range s.parts() {
			ar := rangeAt(want.Start+(part.Start-s.src.Start), uint64(part.Length()))
			v, _, ok := s.vmaAt(ar.Start)
			if file := part.Start != s.page(4); !ok || (v.mappable != nil) != file {
				t.Errorf("during %s: what belongs at %v is not there:\n%s", c.when, ar, s.maps())
			}
		}
		if n := s.VirtualMemorySizeRange(s.src); want != s.src && n != 0 {
			t.Errorf("during %s: %#x bytes are left at the source", c.when, n)
		}
		p.resume()
		move.mustSucceed()
		s.check()
	}
}

// While one mapping is being moved, a hole's destination and what follows are
// nobody's business: faults there do not wait.
func TestRemapOfSeveralFreezesNoMoreThanItMoves(t *testing.T) {
	s := newSeveral(t)
	p := s.f.pauseAt("CopyMapping", 1)
	move := spawn(t, "mremap", func() error { return s.moveTo(s.src) })
	p.wait()
	for _, a := range []hostarch.Addr{s.dst.Start + 3*pageSize, s.dst.Start + 4*pageSize, s.page(4), s.page(12)} {
		if err := s.fault(a, hostarch.Read); err != nil {
			t.Errorf("a fault at %#x: %v", a, err)
		}
	}
	frozen := spawn(t, "fault", func() error { s.fault(s.page(0), hostarch.Read); return nil })
	frozen.mustBlock()
	p.resume()
	move.mustSucceed()
	frozen.mustSucceed()
	s.check()
}

func TestMemoryOfFixedSizeStaysSo(t *testing.T) {
	m := newTestMM(t)
	id, err := m.NewAIOContext(m.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	fr, err := m.mf.Allocate(2*pageSize, pgalloc.AllocOpts{Kind: usage.System})
	if err != nil {
		t.Fatal(err)
	}
	vdso := NewSpecialMappable("[vdso]", m.mf, fr)
	special := m.mustMap(2*pageSize, hostarch.ReadExecute, func(o *memmap.MMapOpts) { o.Mappable, o.MappingIdentity = vdso, vdso })
	vdso.DecRef(m.ctx)
	before := m.capture()
	for _, c := range []struct {
		what     string
		addr     hostarch.Addr
		from, to uint64
	}{
		{"a second ring", hostarch.Addr(id), 0, 1},
		{"a larger ring", hostarch.Addr(id), 1, 2},
		{"a larger vdso", special, 2, 3},
	} {
		for _, mode := range []MRemapMoveMode{MRemapNoMove, MRemapMayMove, MRemapMustMove} {
			_, err := m.MRemap(m.ctx, c.addr, c.from*pageSize, c.to*pageSize, MRemapOpts{Move: mode, NewAddr: m.base + 1<<20})
			mustFailWith(t, c.what+", Linux 6.18", err, linuxerr.EFAULT)
		}
	}
	m.mustBeUnchanged(before)
	if _, err := m.MRemap(m.ctx, special, 2*pageSize, 2*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 1<<20}); err != nil {
		t.Errorf("moving the vdso: %v", err)
	}
	m.DestroyAIOContext(m.ctx, id)
}
