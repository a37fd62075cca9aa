package mm

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims: MRemap does in each of its modes what mremap(2) does. Pages go along with
// what is moved, copied or not, and are what they were; what is new is empty, or the
// file's; what is cut off is gone.

// remapScene is a mapping of four pages, of which all but the second are resident,
// each with its number in it.
type remapScene struct {
	*testMM
	addr hostarch.Addr
	f    *testMappable
}

func newRemapScene(t *testing.T, mode func(*testMappable, uint64) mmapMod) *remapScene {
	s := &remapScene{testMM: newTestMM(t, onRealMemory)}
	s.addr = s.base
	s.f = newTestMappable(t, s.mf, 16*pageSize)
	s.mustMap(4*pageSize, hostarch.ReadWrite, mode(s.f, 0), fixedAt(s.addr))
	for _, i := range []int{0, 2, 3} {
		if err := s.store(s.addr+hostarch.Addr(i)*pageSize, []byte{byte(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// anonymousMemory is what sharedFile and privateFile are for files.
func anonymousMemory(*testMappable, uint64) mmapMod { return func(*memmap.MMapOpts) {} }

// mustHold fails the test unless pages from addr on begin with the given bytes.
func (s *remapScene) mustHold(addr hostarch.Addr, want ...byte) {
	s.t.Helper()
	for i, w := range want {
		got, err := s.load(addr+hostarch.Addr(i)*pageSize, 1)
		if err != nil || got[0] != w {
			s.t.Errorf("page %d at %#x holds %d, %v; want %d", i, addr, got, err, w)
		}
	}
}

// mustBeGone fails the test unless nothing is mapped at ar.
func (s *remapScene) mustBeGone(ar hostarch.AddrRange) {
	s.t.Helper()
	if n := s.VirtualMemorySizeRange(ar); n != 0 {
		s.t.Errorf("of %v, %#x bytes are mapped", ar, n)
	}
	for a := ar.Start; a < ar.End; a += pageSize {
		if _, err := s.load(a, 1); !linuxerr.Equals(linuxerr.EFAULT, err) {
			s.t.Errorf("reading at %#x returned %v", a, err)
		}
	}
}

func (s *remapScene) remap(oldPages, newPages uint64, opts MRemapOpts) (hostarch.Addr, error) {
	addr, err := s.MRemap(s.ctx, s.addr, oldPages*pageSize, newPages*pageSize, opts)
	s.check()
	return addr, err
}

// remapKinds runs a test with each kind of memory.
func remapKinds(t *testing.T, run func(t *testing.T, s *remapScene)) {
	for name, mode := range map[string]func(*testMappable, uint64) mmapMod{"anonymous": anonymousMemory, "shared": sharedFile, "private": privateFile} {
		t.Run(name, func(t *testing.T) { run(t, newRemapScene(t, mode)) })
	}
}

func TestRemapGrowsInPlace(t *testing.T) {
	remapKinds(t, func(t *testing.T, s *remapScene) {
		for _, mode := range []MRemapMoveMode{MRemapNoMove, MRemapMayMove} {
			n := uint64(6 + mode)
			old := 4 + 2*uint64(mode)
			if addr, err := s.remap(old, n, MRemapOpts{Move: mode}); addr != s.addr || err != nil {
				t.Fatalf("grown to %#x, %v", addr, err)
			}
			if ar, _ := s.FindVMARange(s.addr); uint64(ar.Length()) != n*pageSize {
				t.Errorf("the mapping is %v, not one of %d pages", ar, n)
			}
			s.mustHold(s.addr, 1, 0, 3, 4, 0, 0)
		}
	})
}

func TestRemapMovesIfItMayAndHasTo(t *testing.T) {
	remapKinds(t, func(t *testing.T, s *remapScene) {
		s.mustMap(pageSize, hostarch.Read, fixedAt(s.addr+4*pageSize))
		before := s.capture()
		if _, err := s.remap(4, 6, MRemapOpts{}); !linuxerr.Equals(linuxerr.ENOMEM, err) {
			t.Errorf("growing into another mapping: %v", err)
		}
		s.mustBeUnchanged(before)
		addr, err := s.remap(4, 6, MRemapOpts{Move: MRemapMayMove})
		if err != nil || addr == s.addr {
			t.Fatalf("moved to %#x, %v", addr, err)
		}
		s.mustHold(addr, 1, 0, 3, 4, 0, 0)
		s.mustBeGone(rangeAt(s.addr, 4*pageSize))
	})
}

func TestRemapMovesAndReplaces(t *testing.T) {
	for _, c := range []struct{ old, to uint64 }{{4, 4}, {4, 6}, {4, 2}, {2, 3}} {
		t.Run(fmt.Sprintf("%d to %d pages", c.old, c.to), func(t *testing.T) {
			remapKinds(t, func(t *testing.T, s *remapScene) {
				//	| old        |    ...    | x | replaced ... | x |
				dst := s.addr + 32*pageSize
				s.mustMap((c.to+2)*pageSize, hostarch.ReadWrite, fixedAt(dst-pageSize), populated)
				for _, a := range []hostarch.Addr{dst - pageSize, dst, dst + hostarch.Addr(c.to)*pageSize} {
					s.store(a, []byte{99})
				}
				if addr, err := s.remap(c.old, c.to, MRemapOpts{Move: MRemapMustMove, NewAddr: dst}); addr != dst || err != nil {
					t.Fatalf("moved to %#x, %v", addr, err)
				}
				want := []byte{1, 0, 3, 4, 0, 0, 0}[:min(c.old, c.to)]
				for uint64(len(want)) < c.to {
					// What is new shows the file, or nothing.
					b := byte(0)
					if v, _, _ := s.vmaAt(dst); v.mappable != nil && !v.private {
						b = s.f.set.read(uint64(len(want))*pageSize, 1)[0]
					}
					want = append(want, b)
				}
				s.mustHold(dst, want...)
				s.mustBeGone(rangeAt(s.addr, c.old*pageSize))
				s.mustHold(dst-pageSize, 99)
				s.mustHold(dst+hostarch.Addr(c.to)*pageSize, 99)
				if c.old < 4 {
					s.mustHold(s.addr+hostarch.Addr(c.old)*pageSize, []byte{1, 0, 3, 4}[c.old:]...)
				}
			})
		})
	}
}

func TestRemapShrinksInPlace(t *testing.T) {
	remapKinds(t, func(t *testing.T, s *remapScene) {
		for _, mode := range []MRemapMoveMode{MRemapNoMove, MRemapMayMove} {
			n := 3 - uint64(mode)
			if addr, err := s.remap(n+1, n, MRemapOpts{Move: mode}); addr != s.addr || err != nil {
				t.Fatalf("shrunk at %#x, %v", addr, err)
			}
			s.mustBeGone(hostarch.AddrRange{Start: s.addr + hostarch.Addr(n)*pageSize, End: s.addr + 4*pageSize})
			s.mustHold(s.addr, []byte{1, 0, 3, 4}[:n]...)
		}
	})
}

func TestRemapOfNothingCopiesSharedMemory(t *testing.T) {
	remapKinds(t, func(t *testing.T, s *remapScene) {
		if v, _, _ := s.vmaAt(s.addr); v.private {
			_, err := s.remap(0, 2, MRemapOpts{Move: MRemapMayMove})
			mustFailWith(t, "copying private memory", err, linuxerr.EINVAL)
			return
		}
		_, err := s.remap(0, 2, MRemapOpts{})
		mustFailWith(t, "copying in place", err, linuxerr.ENOMEM)
		for _, opts := range []MRemapOpts{{Move: MRemapMayMove}, {Move: MRemapMustMove, NewAddr: s.addr + 8*pageSize}} {
			addr, err := s.remap(0, 4, opts)
			if err != nil {
				t.Fatal(err)
			}
			s.mustHold(addr, 1, 0, 3, 4)
			if err := s.store(addr+pageSize, []byte{byte(20 + opts.Move)}); err != nil {
				t.Fatal(err)
			}
			s.mustHold(s.addr, 1, byte(20+opts.Move), 3, 4)
			if err := s.store(s.addr+pageSize, []byte{0}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestRemapRefusesNonsense(t *testing.T) {
	s := newRemapScene(t, anonymousMemory)
	must := func(to hostarch.Addr) MRemapOpts { return MRemapOpts{Move: MRemapMustMove, NewAddr: to} }
	may := MRemapOpts{Move: MRemapMayMove}
	far := s.addr + 64*pageSize
	for _, c := range []struct {
		what     string
		addr     hostarch.Addr
		old, new uint64
		opts     MRemapOpts
		want     *errors.Error
	}{
		{"unaligned", s.addr + 1, pageSize, pageSize, may, linuxerr.EINVAL},
		{"a new size of 0", s.addr, pageSize, 0, may, linuxerr.EINVAL},
		{"a new size that overflows", s.addr, pageSize, ^uint64(0), may, linuxerr.EINVAL},
		{"a range that wraps around", s.addr, ^uint64(0) &^ (pageSize - 1), pageSize, may, linuxerr.EINVAL},
		{"to an unaligned address", s.addr, pageSize, pageSize, must(far + 1), linuxerr.EINVAL},
		{"onto itself", s.addr, 2 * pageSize, 2 * pageSize, must(s.addr + pageSize), linuxerr.EINVAL},
		{"to beyond all addresses", s.addr, pageSize, pageSize, must(s.layout.MaxAddr), linuxerr.EINVAL},
		{"nothing", far, pageSize, pageSize, may, linuxerr.EFAULT},
		{"more than is mapped, to grow", s.addr, 5 * pageSize, 6 * pageSize, may, linuxerr.EFAULT},
		{"more than is mapped, to move and grow", s.addr, 5 * pageSize, 6 * pageSize, must(far), linuxerr.EFAULT},
		{"what begins with a hole, to move", s.addr - pageSize, 5 * pageSize, 5 * pageSize, must(far), linuxerr.EFAULT},
		{"to more than there are addresses", s.addr, pageSize, 1 << 46, may, linuxerr.ENOMEM},
	} {
		before := s.capture()
		_, err := s.MRemap(s.ctx, c.addr, c.old, c.new, c.opts)
		mustFailWith(t, c.what, err, c.want)
		s.mustBeUnchanged(before)
	}
	if _, err := s.MRemap(s.ctx, s.addr, 5*pageSize, 5*pageSize, may); err != nil {
		t.Errorf("the same size, of more than is mapped: %v", err) // Linux does not look
	}
}

func TestRemapKeepsAttributes(t *testing.T) {
	s := newRemapScene(t, anonymousMemory)
	s.SetVMAAnonName(s.addr, 4*pageSize, "x", false)
	s.SetDontFork(s.addr, 4*pageSize, true)
	s.SetNumaPolicy(s.addr, 4*pageSize, 1, 2)
	s.MLock(s.ctx, s.addr, 4*pageSize, memmap.MLockEager)
	v, _, _ := s.vmaAt(s.addr)
	was := *v
	addr, err := s.remap(4, 8, MRemapOpts{Move: MRemapMustMove, NewAddr: s.addr + 64*pageSize})
	if err != nil {
		t.Fatal(err)
	}
	if v, _, _ := s.vmaAt(addr); *v != was {
		t.Errorf("the mapping was %+v and is %+v", was, *v)
	}
	if n := s.residentBytes(rangeAt(addr, 8*pageSize)); n != 8*pageSize {
		t.Errorf("%#x bytes of a locked mapping are resident", n)
	}
}
