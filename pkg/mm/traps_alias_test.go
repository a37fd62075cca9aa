// A replacement can have the same key in a set of mappings as what it replaces: the
// same space, addresses, offset and writability. Then adding the one and removing the
// other would forget both: invalidations would be lost, and the next munmap would
// remove what is not there. Mappables that are different can share a set, so it does
// not help to compare them.
//
// And an invalidation that is meant for the new mapping must spare the old one, for as
// long as that is what threads see, and the other way round.

package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// mustStillBeTold fails the test unless [addr, addr + n) is all that is registered of
// f's set, from offset off on, an invalidation arrives there, and munmap succeeds.
func (m trapMM) mustStillBeTold(f *testMappable, addr hostarch.Addr, n, off uint64) {
	m.t.Helper()
	m.check()
	regs := f.set.registrations()
	if len(regs) != 1 || regs[0].AddrRange != rangeAt(addr, n) || regs[0].off != off || regs[0].MappingSpace != m.MemoryManager {
		m.t.Errorf("what should be registered is %v at offset %#x; what is:\n%v", rangeAt(addr, n), off, f.set.dump())
	}
	last := off + n - pageSize
	f.set.write(last, []byte("before"))
	end := addr + hostarch.Addr(n) - pageSize
	m.mustLoad(end, "before")
	f.set.replace(memmap.MappableRange{Start: last, End: last + pageSize})
	f.set.write(last, []byte("after!"))
	if got, ok := m.loadWithoutFault(end, 6); ok && got != "after!" {
		m.t.Errorf("the host still has the invalidated page mapped; it reads %q", got)
	}
	m.mustLoad(end, "after!")
	m.mustUnmap(addr, n)
	m.check()
	if left := f.set.dump(); len(left) != 0 {
		m.t.Errorf("after munmap, this is still registered: %v", left)
	}
}

func TestRemapSameFileSameOffset(t *testing.T) {
	for name, how := range map[string][]mmapMod{
		"":                  nil,
		"populated":         {populated},
		"must be populated": {populated, required},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, 4*pageSize)
			for range 3 {
				m.mustMap(2*pageSize, hostarch.ReadWrite, append(how, fixedAt(m.base), sharedFile(f, pageSize))...)
				m.mustLoad(m.base, zeroes(1))
				m.check()
			}
			m.mustStillBeTold(f, m.base, 2*pageSize, pageSize)
		})
	}
}

// Two names of one file are two Mappables with one set of mappings.
func TestFixedOverHardlinkAlias(t *testing.T) {
	m := newTrapMM(t)
	set := newSharedSet(t, m.mf, 4*pageSize)
	f, g := set.newMappable(), set.newMappable()
	for _, name := range []*testMappable{f, g, f} {
		m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(name, 0))
		m.mustLoad(m.base, zeroes(1))
		m.check()
	}
	g.id.close()
	if !g.id.isReleased() {
		t.Error("the name that was replaced is still referenced")
	}
	m.mustStillBeTold(f, m.base, 4*pageSize, 0)
}

// Two descriptors of a special file are two Mappables as well. To a set of mappings,
// a shared one that can never be written to is the same as a private one, whether or
// not anybody can access that.
func TestFixedOverSecondSpecialFD(t *testing.T) {
	for name, c := range map[string]struct {
		perms hostarch.AccessType
		first func(*testMappable, uint64) mmapMod
	}{
		"shared":                 {hostarch.Read, sharedFile},
		"private":                {hostarch.Read, privateFile},
		"private without access": {hostarch.NoAccess, privateFile},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			set := newSharedSet(t, m.mf, 2*pageSize)
			first, second := set.newMappable(), set.newMappable()
			m.mustMap(2*pageSize, c.perms, fixedAt(m.base), c.first(first, 0), maxPerms(hostarch.Read))
			m.mustMap(2*pageSize, hostarch.Read, fixedAt(m.base), sharedFile(second, 0), maxPerms(hostarch.Read), populated)
			m.check()
			m.mustMap(2*pageSize, hostarch.Read, fixedAt(m.base), c.first(first, 0), maxPerms(hostarch.Read))
			m.mustStillBeTold(first, m.base, 2*pageSize, 0)
		})
	}
}

// An overlay has a Mappable for each of its dentries. Here the alias is a part of the
// mapping:
//
//	old |---lower---|---lower---|---lower---|   pages 0 to 5
//	new             |---upper---|               pages 2 and 3
func TestFixedOverOverlayAlias(t *testing.T) {
	m := newTrapMM(t)
	set := newSharedSet(t, m.mf, 6*pageSize)
	lower, upper := set.newMappable(), set.newMappable()
	m.mustMap(6*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(lower, 0), populated)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base+2*pageSize), sharedFile(upper, 2*pageSize))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+3*pageSize), sharedFile(lower, 3*pageSize), populated)
	m.check()
	regs := set.registrations()
	if len(regs) != 1 || regs[0].AddrRange != rangeAt(m.base, 6*pageSize) {
		t.Errorf("registered are %v", set.dump())
	}
	m.mustUnmap(m.base, 2*pageSize)
	m.mustUnmap(m.base+3*pageSize, 3*pageSize)
	m.mustStillBeTold(upper, m.base+2*pageSize, pageSize, 2*pageSize)
}

// The key of a moved mapping can be that of what it lands on.
func TestMremapFixedOverAlias(t *testing.T) {
	for name, c := range map[string]struct{ oldSize, newSize uint64 }{
		"moved":            {2 * pageSize, 2 * pageSize},
		"moved and grown":  {2 * pageSize, 4 * pageSize},
		"moved and shrunk": {4 * pageSize, 2 * pageSize},
		"copied":           {0, 2 * pageSize},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			set := newSharedSet(t, m.mf, 4*pageSize)
			f, g := set.newMappable(), set.newMappable()
			src, dst := m.base, m.base+1<<20
			m.mustMap(max(c.oldSize, pageSize), hostarch.ReadWrite, fixedAt(src), sharedFile(f, 0), populated)
			m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(dst), sharedFile(g, 0), populated)
			if _, err := m.MRemap(m.ctx, src, c.oldSize, c.newSize, MRemapOpts{Move: MRemapMustMove, NewAddr: dst}); err != nil {
				t.Fatal(err)
			}
			m.check()
			if c.oldSize == 0 {
				m.mustUnmap(src, pageSize)
			}
			m.mustUnmap(dst+hostarch.Addr(c.newSize), 4*pageSize)
			m.mustStillBeTold(f, dst, c.newSize, 0)
		})
	}
}

// The new mapping is known to its file before it is there. If the file is truncated
// then, what goes is not the memory that it is about to replace.
func TestTruncateBetweenAskAndInstallKeepsOldAnon(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 2*pageSize)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base))
	for _, a := range []hostarch.Addr{m.base, m.base + pageSize} {
		m.mustStore(a, "not the file's")
	}
	p := f.id.pauseAt("IncRef", 1) // by the vma, once its Mappable was asked
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0), populated)
		return err
	})
	p.wait()
	if len(f.set.registrations()) == 0 {
		t.Fatal("the test is wrong: the file does not know the mapping yet")
	}
	f.set.truncate(pageSize)
	for _, a := range []hostarch.Addr{m.base, m.base + pageSize} {
		m.mustLoad(a, "not the file's")
	}
	p.resume()
	replace.mustSucceed()
	m.check()
	m.mustLoad(m.base, zeroes(14))
	m.mustGetSIGBUS(m.base + pageSize)

	// From now on it is meant.
	m.mustStore(m.base, "the file's")
	f.set.truncate(0)
	m.mustGetSIGBUS(m.base)
	m.check()
}

// The old file knows the mapping a little longer than it is there. If it is truncated
// then, what goes is not the memory that came in its place.
func TestInvalidateDuringRemoveSparesNewPages(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 2*pageSize)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0))
	m.mustStore(m.base, "the file's")
	p := f.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
		return err
	})
	p.wait()
	// The pages are mapped, so a thread can use them: that does not fault.
	if !m.storeWithoutFault(m.base, "not the file's") {
		t.Fatal("the test is wrong: the new mapping is not populated yet")
	}
	f.set.truncate(0)
	p.resume()
	replace.mustSucceed()
	m.check()
	m.mustLoad(m.base, "not the file's")
}

// The new file knows the mapping under a space of its own for as long. What it
// invalidates then is gone when that returns.
func TestInvalidateOfNewMappingDuringRemoveReachesIt(t *testing.T) {
	m := newTrapMM(t)
	f, g := newTestMappable(t, m.mf, 2*pageSize), newTestMappable(t, m.mf, 2*pageSize)
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0))
	p := f.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(g, 0), populated)
		return err
	})
	p.wait()
	if !m.storeWithoutFault(m.base, "before") {
		t.Fatal("the test is wrong: the new mapping is not populated yet")
	}
	g.set.replace(memmap.MappableRange{End: pageSize})
	if m.storeWithoutFault(m.base, "stale!") {
		t.Error("a thread still writes to the page that was replaced")
	}
	p.resume()
	replace.mustSucceed()
	m.check()
	m.mustLoad(m.base, zeroes(6))
}
