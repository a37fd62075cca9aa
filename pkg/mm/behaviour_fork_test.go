package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/usermem"
)

// Claims: a forked child has its parent's memory, copied when either writes, but for
// what is shared, what MADV_DONTFORK was set for, and what is pinned, which stays the
// parent's very pages. Copies are made of few pages where few will be used, and of none
// if nobody else has them any more.

// mustRead fails the test unless want is at addr in m.
func (m *testMM) mustRead(addr hostarch.Addr, want string) {
	m.t.Helper()
	if got, err := m.load(addr, len(want)); string(got) != want || err != nil {
		m.t.Errorf("%s has %q at %#x, %v; want %q", m.name, got, addr, err, want)
	}
}

// mustWrite writes s at addr in m.
func (m *testMM) mustWrite(addr hostarch.Addr, s string) {
	m.t.Helper()
	if err := m.store(addr, []byte(s)); err != nil {
		m.t.Fatalf("%s: writing at %#x: %v", m.name, addr, err)
	}
}

func TestForkCopiesOnWriteInEitherDirection(t *testing.T) {
	for _, parentFirst := range []bool{false, true} {
		m := newTestMM(t, onRealMemory)
		addr := m.mustMap(4*pageSize, hostarch.ReadWrite)
		m.mustWrite(addr, "old")
		child := m.fork()
		first, second := child, m
		if parentFirst {
			first, second = m, child
		}
		first.mustWrite(addr, "new")
		second.mustRead(addr, "old")
		first.mustRead(addr, "new")
		second.mustWrite(addr, "two")
		first.mustRead(addr, "new")
		m.check()
		child.check()
	}
}

func TestForkOfAForkSharesOldPages(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(pageSize, hostarch.ReadWrite)
	m.mustWrite(addr, "old")
	_, _, page, _ := m.pmaAt(addr)
	grand := m.fork().fork()
	if n := refsOf(m.mf, page.Start); n != 3 {
		t.Errorf("the page has %d references, with three who have it", n)
	}
	grand.mustWrite(addr, "new")
	if n := refsOf(m.mf, page.Start); n != 2 {
		t.Errorf("the page has %d references, with two who have it", n)
	}
	m.mustRead(addr, "old")
}

func TestLastOwnerWritesInPlace(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(pageSize, hostarch.ReadWrite)
	m.mustWrite(addr, "old")
	_, _, page, _ := m.pmaAt(addr)
	m.fork().exit()
	m.mustWrite(addr, "new")
	if _, _, now, _ := m.pmaAt(addr); now != page {
		t.Errorf("the page was copied from %v to %v, though nobody else had it", page, now)
	}
}

func TestForkSharesSharedMemory(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	f := newTestMappable(t, m.mf, pageSize)
	addr := m.mustMap(pageSize, hostarch.ReadWrite, sharedFile(f, 0))
	child := m.fork()
	child.mustWrite(addr, "ours")
	m.mustRead(addr, "ours")
	if n := len(f.set.registrations()); n != 2 {
		t.Errorf("%d registrations: %v", n, f.set.dump())
	}
	f.set.truncate(0)
	for _, who := range []*testMM{m, child} {
		if _, err := who.load(addr, 1); err == nil {
			t.Errorf("%s reads what was truncated", who.name)
		}
	}
}

func TestForkLeavesOutDontFork(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(3*pageSize, hostarch.ReadWrite)
	m.mustWrite(addr, "a")
	m.mustWrite(addr+pageSize, "b")
	m.mustWrite(addr+2*pageSize, "c")
	m.SetDontFork(addr+pageSize, pageSize, true)
	child := m.fork()
	child.mustRead(addr, "a")
	child.mustRead(addr+2*pageSize, "c")
	if _, err := child.load(addr+pageSize, 1); !linuxerr.Equals(linuxerr.EFAULT, err) {
		t.Errorf("the child reads what is not forked: %v", err)
	}
	if n := child.VirtualMemorySize(); n != 2*pageSize {
		t.Errorf("the child has %#x bytes mapped", n)
	}
	p, _, _, _ := m.pmaAt(addr + pageSize)
	if p.needCOW {
		t.Error("what is not forked is copied on write")
	}
	m.check()
	child.check()
}

func TestForkInheritsNoLocks(t *testing.T) {
	m := newTestMM(t)
	addr := m.mustMap(3*pageSize, hostarch.ReadWrite)
	m.MLock(m.ctx, addr+pageSize, pageSize, memmap.MLockEager)
	m.MLockAll(m.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager})
	child := m.fork()
	if ar, _ := child.FindVMARange(addr); ar != rangeAt(addr, 3*pageSize) {
		t.Errorf("without locks the child's mapping is %v", ar)
	}
	if v, _, _ := child.vmaAt(child.mustMap(pageSize, hostarch.Read)); v.mlockMode != memmap.MLockNone {
		t.Error("the child inherited MCL_FUTURE")
	}
	child.check()
}

func TestForkCopiesPinnedPages(t *testing.T) {
	//	|  | pinned |  |
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(3*pageSize, hostarch.ReadWrite)
	for i := range hostarch.Addr(3) {
		m.mustWrite(addr+i*pageSize, "old")
	}
	prs, err := m.Pin(m.ctx, rangeAt(addr+pageSize, pageSize), hostarch.Read, false)
	if err != nil || len(prs) != 1 {
		t.Fatalf("Pin: %v, %v", prs, err)
	}
	defer Unpin(prs)
	child := m.fork()
	m.mustWrite(addr+pageSize, "new") // must not move the page
	if _, _, page, _ := m.pmaAt(addr + pageSize); page != prs[0].FileRange() {
		t.Errorf("the parent has %v, where %v is pinned", page, prs[0].FileRange())
	}
	fillFile(t, m.mf, prs[0].Offset, []byte("dev"))
	m.mustRead(addr+pageSize, "dev")
	child.mustRead(addr+pageSize, "old")
	for _, i := range []hostarch.Addr{0, 2} {
		if p, _, _, _ := m.pmaAt(addr + i*pageSize); !p.needCOW {
			t.Errorf("page %d, which is not pinned, was copied", i)
		}
	}
	m.check()
	child.check()
}

func TestPinEndsCopyOnWrite(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	f := newTestMappable(t, m.mf, pageSize)
	f.set.write(0, []byte("file"))
	anon := m.mustMap(pageSize, hostarch.ReadWrite)
	m.mustWrite(anon, "anon")
	private := m.mustMap(pageSize, hostarch.ReadWrite, privateFile(f, 0))
	child := m.fork()
	for addr, want := range map[hostarch.Addr]string{anon: "anon", private: "file"} {
		prs, err := m.Pin(m.ctx, rangeAt(addr, pageSize), hostarch.Read, false)
		if err != nil || len(prs) != 1 {
			t.Fatalf("Pin: %v, %v", prs, err)
		}
		if got := string(fileBytes(t, prs[0].File, prs[0].FileRange())[:4]); got != want {
			t.Errorf("the pinned page holds %q, want %q", got, want)
		}
		m.mustWrite(addr, "new!")
		if got := string(fileBytes(t, prs[0].File, prs[0].FileRange())[:4]); got != "new!" {
			t.Errorf("after a write, the pinned page holds %q", got)
		}
		child.mustRead(addr, want)
		Unpin(prs)
	}
	if _, err := m.Pin(m.ctx, rangeAt(m.base, pageSize), hostarch.Read, false); !linuxerr.Equals(linuxerr.EFAULT, err) {
		t.Errorf("pinning nothing: %v", err)
	}
}

func TestCopiesOfStacksAndCodeAreSmall(t *testing.T) {
	const n = 64 * pageSize
	for _, c := range []struct {
		what  string
		perms hostarch.AccessType
		mods  []mmapMod
		want  uint64
	}{
		{"data", hostarch.ReadWrite, nil, copyUnit},
		{"code", hostarch.AnyAccess, nil, pageSize},
		{"a stack", hostarch.ReadWrite, []mmapMod{growsDown}, 3 * pageSize},
		{"a thread's stack", hostarch.ReadWrite, []mmapMod{func(o *memmap.MMapOpts) { o.Stack = true }}, 3 * pageSize},
	} {
		m := newTestMM(t, onRealMemory)
		addr := m.mustMap(n, c.perms, append(c.mods, fixedAt(m.base), populated)...)
		child := m.fork()
		used := usedPages(m.mf)
		child.mustWrite(addr+8*pageSize, "x")
		if got := usedPages(m.mf) - used; got != c.want {
			t.Errorf("%s: a write copied %d pages, want %d", c.what, got/pageSize, c.want/pageSize)
		}
		child.check()
	}
}

func TestIgnoringPermissionsBreaksCopyOnWriteToo(t *testing.T) {
	// As ptrace does when it sets a breakpoint in code.
	m := newTestMM(t, onRealMemory)
	f := newTestMappable(t, m.mf, pageSize)
	f.set.write(0, []byte("code"))
	addr := m.mustMap(pageSize, hostarch.ReadExecute, privateFile(f, 0))
	m.mustRead(addr, "code")
	child := m.fork()
	if _, err := child.CopyOut(child.ctx, addr, []byte("trap"), usermem.IOOpts{IgnorePermissions: true}); err != nil {
		t.Fatal(err)
	}
	m.mustRead(addr, "code")
	child.mustRead(addr, "trap")
	if got := string(f.set.read(0, 4)); got != "code" {
		t.Errorf("the file holds %q", got)
	}
	if err := child.store(addr, []byte{0}); !linuxerr.Equals(linuxerr.EPERM, err) {
		t.Errorf("the child writes to its code: %v", err)
	}
}
