package mm

import (
	"regexp"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/futex"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Claims: corners in which programs saw another answer under the sentry than on Linux.
// All answers were printed by programs on Linux 6.18.

// What is wrong with an mmap is found in this order, whatever else is.
func TestMMapNamesTheFirstThingThatIsWrong(t *testing.T) {
	const odd = 0x123
	beyond := func(o *memmap.MMapOpts) { o.Addr, o.Fixed, o.Unmap = 0x7ffffffff000+odd, true, true }
	oddOffset := func(o *memmap.MMapOpts) { o.Offset = odd }
	for name, c := range map[string]struct {
		n    uint64
		mods []mmapMod
		want *errors.Error
	}{
		"an odd offset of anonymous memory": {pageSize, []mmapMod{oddOffset}, linuxerr.EINVAL},
		"an odd offset, too long":           {^uint64(0), []mmapMod{oddOffset}, linuxerr.EINVAL},
		"no length, beyond the end":         {0, []mmapMod{beyond}, linuxerr.EINVAL},
		"too long, at an odd address":       {1 << 62, []mmapMod{fixedAt(0x100000 + odd)}, linuxerr.ENOMEM},
		"beyond the end, at an odd address": {pageSize, []mmapMod{beyond}, linuxerr.ENOMEM},
		"an odd address, forbidden":         {pageSize, []mmapMod{fixedAt(0x100000 + odd), maxPerms(hostarch.Read)}, linuxerr.EINVAL},
		"beyond the end, forbidden":         {pageSize, []mmapMod{fixedAt(0x7ffffffff000), maxPerms(hostarch.Read)}, linuxerr.ENOMEM},
		"in the way, forbidden":             {pageSize, []mmapMod{noReplaceAt(0x200000), maxPerms(hostarch.Read)}, linuxerr.EEXIST},
		"a file that grows down, forbidden": {pageSize, []mmapMod{maxPerms(hostarch.Read), growsDown, func(o *memmap.MMapOpts) { o.MappingIdentity = &SpecialMappable{} }}, linuxerr.EACCES},
		"forbidden":                         {pageSize, []mmapMod{maxPerms(hostarch.Read)}, linuxerr.EACCES},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(0x200000))
			before := m.maps()
			_, err := m.mmap(c.n, hostarch.ReadWrite, c.mods...)
			mustFailWith(t, name, err, c.want)
			if after := m.maps(); after != before {
				t.Errorf("the mappings were\n%sand are\n%s", before, after)
			}
		})
	}
}

// Shrinking must not take everything above the mapping, whatever the old size says.
func TestRemapFromBeyondTheAddressSpaceChangesNothing(t *testing.T) {
	m := newTestMM(t)
	at := m.base
	m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(at))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(at+64*pageSize))
	before := m.maps()
	for _, oldSize := range []uint64{1 << 47, 1 << 62, ^uint64(0) - 2*pageSize} {
		for _, opts := range []MRemapOpts{{}, {Move: MRemapMayMove}, {Move: MRemapMustMove, NewAddr: at - 64*pageSize}} {
			_, err := m.MRemap(m.ctx, at, oldSize, 2*pageSize, opts)
			mustFailWith(t, "from beyond the end", err, linuxerr.EINVAL)
			_, err = m.MRemap(m.ctx, at+8*pageSize, oldSize, 2*pageSize, opts)
			mustFailWith(t, "the same of nothing", err, linuxerr.EFAULT)
		}
	}
	if after := m.maps(); after != before {
		t.Errorf("the mappings were\n%sand are\n%s", before, after)
	}
	_, err := m.MRemap(m.ctx, ^hostarch.Addr(pageSize-1), pageSize, pageSize, MRemapOpts{})
	mustFailWith(t, "the last page there could be", err, linuxerr.EFAULT)
	_, err = m.MRemap(m.ctx, at, 0, pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: at})
	mustFailWith(t, "a copy of private memory onto itself", err, linuxerr.EINVAL)
}

// It is the page that has the futex, not the mapping.
func TestSharedFutexIsThePages(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	shared := m.mustMap(2*pageSize, hostarch.ReadWrite, sharedFile(f, 0))
	readOnly := m.mustMap(pageSize, hostarch.Read, sharedFile(f, 0))
	code := m.mustMap(pageSize, hostarch.Read, privateFile(f, 0))
	data := m.mustMap(pageSize, hostarch.ReadWrite, privateFile(f, 0))
	constants := m.mustMap(pageSize, hostarch.Read)
	get := func(addr hostarch.Addr) (futex.Key, error) {
		k, err := m.GetSharedFutexKey(m.ctx, addr)
		if k.MappingIdentity != nil {
			k.MappingIdentity.DecRef(m.ctx)
		}
		return k, err
	}
	want, err := get(shared)
	if err != nil {
		t.Fatal(err)
	}
	for name, addr := range map[string]hostarch.Addr{"mapped read-only": readOnly, "mapped privately": code} {
		if k, err := get(addr); k != want || err != nil {
			t.Errorf("a page of a file, %s, has the key %+v (%v), shared it has %+v", name, k, err, want)
		}
	}
	if k, err := get(data); k.Kind != futex.KindSharedPrivate || err != nil {
		t.Errorf("private memory from a file has the key %+v (%v)", k, err)
	}
	_, err = get(constants)
	mustFailWith(t, "read-only private memory", err, linuxerr.EFAULT)
	_, err = get(shared + pageSize)
	mustFailWith(t, "beyond the end of the file", err, linuxerr.EFAULT)

	m.mustFault(data, pageSize, hostarch.Write)
	if err := m.MProtect(data, pageSize, hostarch.Read, false); err != nil {
		t.Fatal(err)
	}
	_, err = get(data)
	mustFailWith(t, "a private page, now read-only", err, linuxerr.EFAULT)
	if n := f.id.count(); n != 5 { // the test's, and one for each mapping
		t.Errorf("%d references on the file are left, want 5", n)
	}
}

// A debugger's breakpoint goes into private memory, and nowhere that others see it.
func TestForcedWritesStayPrivate(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	forced := usermem.IOOpts{IgnorePermissions: true}
	for _, existing := range []bool{false, true} {
		shared := m.mustMap(pageSize, hostarch.Read, sharedFile(f, 0))
		private := m.mustMap(pageSize, hostarch.Read, privateFile(f, 0))
		if existing {
			// With internal mappings, so that the pages are found without the vma.
			for _, addr := range []hostarch.Addr{shared, private} {
				if _, err := m.CopyIn(m.ctx, addr, make([]byte, 8), usermem.IOOpts{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		_, err := m.CopyOut(m.ctx, shared, []byte("breakpoint"), forced)
		mustFailWith(t, "a forced write to read-only shared memory", err, linuxerr.EFAULT)
		if _, err := m.CopyOut(m.ctx, private, []byte("breakpoint"), forced); err != nil {
			t.Errorf("a forced write to private memory: %v", err)
		}
		if err := m.MProtect(shared, pageSize, hostarch.ReadWrite, false); err != nil {
			t.Fatal(err)
		}
		if _, err := m.CopyOut(m.ctx, shared, []byte{1}, forced); err != nil {
			t.Errorf("a write to memory that is no longer read-only: %v", err)
		}
		if got := f.set.read(0, 1)[0]; got != 1 {
			t.Errorf("the file has %#x", got)
		}
		f.set.write(0, []byte{0})
		m.mustUnmap(shared, pageSize)
		m.mustUnmap(private, pageSize)
	}
}

// SysV counts vmas: none goes away by merging. One may grow at the expense of another.
func TestVMAsOfSegmentsAreNotMergedAway(t *testing.T) {
	m := newTrapMM(t)
	s := newSegments(m)
	seg := s.create(8 * pageSize)
	s.attach(seg, m.base, false)
	lines := func() string {
		return strings.Join(regexp.MustCompile(`(?m)^\S+ \S+`).FindAllString(m.maps(), -1), "\n")
	}
	protect := func(page, n hostarch.Addr, perms hostarch.AccessType) {
		t.Helper()
		if err := m.MProtect(m.base+page*pageSize, uint64(n*pageSize), perms, false); err != nil {
			t.Fatal(err)
		}
	}
	mustHave := func(when string, n int) {
		t.Helper()
		if got := m.vmas.Snapshot().Len(); got != n {
			t.Errorf("%s, there are %d vmas, want %d:\n%s", when, got, n, lines())
		}
		m.check()
	}
	protect(2, 2, hostarch.Read)
	mustHave("with the middle read-only", 3)
	protect(4, 1, hostarch.Read)
	mustHave("with more of it read-only", 3)
	protect(2, 3, hostarch.ReadWrite)
	mustHave("with all writable again", 3)
	if _, err := m.MRemap(s.ctx, m.base+2*pageSize, 3*pageSize, 3*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 32*pageSize}); err != nil {
		t.Fatal(err)
	}
	mustHave("with the middle elsewhere", 3)
	if _, err := m.MRemap(s.ctx, m.base+32*pageSize, 3*pageSize, 3*pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base + 2*pageSize}); err != nil {
		t.Fatal(err)
	}
	mustHave("with the middle back, a part of what is before it", 2)
	s.mustBeAttached(seg, 2, "after all this")
	forked, err := m.Fork(s.ctx)
	if err != nil {
		t.Fatal(err)
	}
	child := wrapMM(t, forked, m.ctx.clone())
	if n := child.vmas.Snapshot().Len(); n != 2 {
		t.Errorf("the child has %d vmas, want 2", n)
	}
	s.mustBeAttached(seg, 4, "after fork")
	child.DecUsers(s.ctx)
	child.dead = true
	s.mustBeAttached(seg, 2, "after the child has ended")
}

// Locked memory is there when it is written to, also if it could not be written to
// when it was locked.
func TestLockedMemoryThatBecomesWritableIsCopied(t *testing.T) {
	for name, c := range map[string]struct {
		mode   memmap.MLockMode
		copied bool
	}{"locked": {memmap.MLockEager, true}, "locked on fault": {memmap.MLockLazy, false}, "not locked": {memmap.MLockNone, false}} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			f := newTestMappable(t, m.mf, 4*pageSize)
			m.mustMap(4*pageSize, hostarch.Read, fixedAt(m.base), privateFile(f, 0), locked(c.mode), populated)
			if err := m.MProtect(m.base+pageSize, 2*pageSize, hostarch.ReadWrite, false); err != nil {
				t.Fatal(err)
			}
			for page := range hostarch.Addr(4) {
				p, _, _, ok := m.pmaAt(m.base + page*pageSize)
				writable := page == 1 || page == 2
				if private := ok && p.private; private != (c.copied && writable) {
					t.Errorf("page %d is private: %t", page, private)
				}
			}
		})
	}
}

// After fork the pages are shared, until one of the two writes.
func TestSmapsTellsSharedPagesFromPrivateOnes(t *testing.T) {
	m := newTestMM(t)
	m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(m.base))
	m.mustFault(m.base, 4*pageSize, hostarch.Write)
	field := func(m *testMM, name string) string {
		return regexp.MustCompile(`(?m)^` + name + `: +(\d+) kB$`).FindStringSubmatch(m.smaps())[1]
	}
	mustBe := func(m *testMM, when, private, shared, pss string) {
		t.Helper()
		for name, want := range map[string]string{"Private_Dirty": private, "Shared_Dirty": shared, "Pss": pss, "Rss": "16", "Private_Clean": "0", "Shared_Clean": "0"} {
			if got := field(m, name); got != want {
				t.Errorf("%s, %s is %s kB, want %s", when, name, got, want)
			}
		}
	}
	mustBe(m, "alone", "16", "0", "16")
	child := m.fork()
	mustBe(m, "after fork", "0", "16", "8")
	mustBe(child, "in the child", "0", "16", "8")
	child.exit()
	mustBe(m, "without the child", "16", "0", "16")
}

// The heap is a place, not a mapping: what is there has its name, and joins it.
func TestHeapIsWhatIsThere(t *testing.T) {
	m := newTestMM(t)
	anon := func(o *memmap.MMapOpts) { o.NameMut = memmap.NameMutAnon } // as mmap(2) does
	m.BrkSetup(m.ctx, m.base)
	if _, err := m.Brk(m.ctx, m.base+8*pageSize); err != nil {
		t.Fatal(err)
	}
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+2*pageSize), anon)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+8*pageSize), anon)
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base+4*pageSize), anon)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+16*pageSize), anon)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+6*pageSize), privateFile(f, 0))
	for _, text := range []string{m.maps(), m.smaps()} {
		// 0 to 4, 4, 5, the file, 7 to 9, and what is not the heap.
		if got := strings.Count(text, "[heap]\n"); got != 4 {
			t.Errorf("%d lines are the heap's, want 4:\n%s", got, text)
		}
	}
	if n := m.vmas.Snapshot().Len(); n != 6 {
		t.Errorf("there are %d vmas, want 6", n)
	}
}

// What may be locked is asked for before what the file allows, and that before how much may be mapped.
func TestMMapAsksForRlimitMemlockFirst(t *testing.T) {
	locked := func(o *memmap.MMapOpts) { o.MLockMode = memmap.MLockLazy }
	for name, c := range map[string]struct {
		kind limits.LimitType
		want *errors.Error
	}{"memlock": {limits.MemoryLocked, linuxerr.EAGAIN}, "as": {limits.AS, linuxerr.EACCES}} {
		t.Run(name, func(t *testing.T) {
			m := newTestMM(t)
			m.ctx.limit(c.kind, 1)
			_, err := m.mmap(2*pageSize, hostarch.ReadWrite, maxPerms(hostarch.Read), locked)
			mustFailWith(t, name, err, c.want)
		})
	}
}

// A ring of AIO cannot be made code.
func TestRingsAreNoCode(t *testing.T) {
	m := newTestMM(t)
	id, err := m.NewAIOContext(m.ctx, 8)
	if err != nil {
		t.Fatal(err)
	}
	mustFailWith(t, "mprotect", m.MProtect(hostarch.Addr(id), pageSize, hostarch.ReadExecute, false), linuxerr.EACCES)
}

// A ring of AIO is not locked, whatever is asked, and does not count, but there
// must be room for it below RLIMIT_MEMLOCK.
func TestRingsAreNotLocked(t *testing.T) {
	m := newTestMM(t)
	if err := m.MLockAll(m.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager}); err != nil {
		t.Fatal(err)
	}
	id, err := m.NewAIOContext(m.ctx, 8)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.MLock(m.ctx, hostarch.Addr(id), pageSize, memmap.MLockEager); err != nil {
		t.Errorf("mlock: %v", err)
	}
	if n := m.vmas.Snapshot().Meta().locked; n != 0 {
		t.Errorf("%#x bytes are locked", n)
	}
	if m.mustMap(pageSize, hostarch.ReadWrite); m.vmas.Snapshot().Meta().locked != pageSize {
		t.Error("other memory is not")
	}
	m.ctx.limit(limits.MemoryLocked, 2*pageSize-1)
	_, err = m.NewAIOContext(m.ctx, 8)
	mustFailWith(t, "a ring when nothing more can be locked", err, linuxerr.ENOMEM)
}
