package mm

import (
	"bytes"
	"testing"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/futex"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims: the calls that change what is mapped, without mapping: mprotect, mlock,
// mlockall, madvise, prctl, mbind, msync. They apply to what they say, up to where
// Linux stops, and merge what is alike afterwards. And the questions that are asked
// of mappings are answered as Linux does.

func TestMprotectOfHoles(t *testing.T) {
	//	|-- a --|  hole  |-- b --|
	m := newTestMM(t)
	a, b := m.base, m.base+4*pageSize
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(a))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(b))
	err := m.MProtect(a+pageSize, 4*pageSize, hostarch.Read, false)
	mustFailWith(t, "across a hole", err, linuxerr.ENOMEM)
	for addr, want := range map[hostarch.Addr]hostarch.AccessType{a: hostarch.ReadWrite, a + pageSize: hostarch.Read, b: hostarch.ReadWrite} {
		if v, _, _ := m.vmaAt(addr); v.realPerms != want {
			t.Errorf("%#x has %v, want %v", addr, v.realPerms, want)
		}
	}
	mustFailWith(t, "unaligned", m.MProtect(a+1, pageSize, hostarch.Read, false), linuxerr.EINVAL)
	mustFailWith(t, "overflow", m.MProtect(a, ^uint64(0), hostarch.Read, false), linuxerr.ENOMEM)
	if err := m.MProtect(a+2*pageSize, 0, hostarch.Read, false); err != nil {
		t.Errorf("nothing: %v", err)
	}
	m.check()
}

func TestMprotectLimitsAreEnforced(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	f := newTestMappable(t, m.mf, pageSize)
	addr := m.mustMap(pageSize, hostarch.Read, sharedFile(f, 0), maxPerms(hostarch.ReadExecute))
	before := m.capture()
	mustFailWith(t, "a read-only file", m.MProtect(addr, pageSize, hostarch.ReadWrite, false), linuxerr.EACCES)
	m.mustBeUnchanged(before)
	if err := m.MProtect(addr, pageSize, hostarch.NoAccess, false); err != nil {
		t.Fatal(err)
	}
	if _, err := m.load(addr, 1); !linuxerr.Equals(linuxerr.EPERM, err) {
		t.Errorf("reading what is inaccessible: %v", err)
	}
	if err := m.MProtect(addr, pageSize, hostarch.Read, false); err != nil {
		t.Fatal(err)
	}
	if _, err := m.load(addr, 1); err != nil {
		t.Errorf("reading what is accessible again: %v", err)
	}
}

func TestMprotectGrowsDown(t *testing.T) {
	//	|-- grows down --|  hole  |-- does not --|
	m := newTestMM(t)
	down, other := m.base+8*pageSize, m.base+32*pageSize
	m.mustMap(4*pageSize, hostarch.ReadWrite, growsDown, fixedAt(down))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(other))
	if err := m.MProtect(down+3*pageSize, pageSize, hostarch.Read, true); err != nil {
		t.Fatal(err)
	}
	if v, ar, _ := m.vmaAt(down); v.realPerms != hostarch.Read || ar.Length() != 4*pageSize {
		t.Errorf("%v has %v; all of what grows down should have changed", ar, v.realPerms)
	}
	mustFailWith(t, "what does not grow down", m.MProtect(other, pageSize, hostarch.Read, true), linuxerr.EINVAL)
	mustFailWith(t, "nothing, below what does", m.MProtect(m.base, pageSize, hostarch.Read, true), linuxerr.ENOMEM)
	mustFailWith(t, "nothing, below what does not", m.MProtect(other-4*pageSize, pageSize, hostarch.Read, true), linuxerr.ENOMEM)
	mustFailWith(t, "nothing at all", m.MProtect(other+pageSize, pageSize, hostarch.Read, true), linuxerr.ENOMEM)
}

// This is what a shared mapping of /dev/zero is if it can never be written to: for the
// sentry's device, as in Linux, it is anonymous memory.
func TestSharedAnonymousMemoryThatIsReadOnly(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(2*pageSize, hostarch.Read, maxPerms(hostarch.ReadExecute), func(o *memmap.MMapOpts) { o.Private = false })
	for _, x := range []*testMM{m, m.fork()} {
		if b, err := x.load(addr, 4); err != nil || string(b) != zeroes(4) {
			t.Errorf("%s holds %q, %v", x.name, b, err)
		}
		x.check()
	}
}

// What a program has no bytes for follows its data, anonymous: they are neighbours in the memory file, too, and one mapping of the host's will do for both. So are mappings that are placed below each other.
func TestPagesOfNeighboursAreNeighbours(t *testing.T) {
	const n = spareMax + pageSize // more than there are spare pages for
	m := newTestMM(t, onRealMemory)
	data := m.base
	bss := data + n
	low := m.mustMap(n, hostarch.ReadWrite, fixedAt(m.base+64*n))
	lower := m.mustMap(n, hostarch.Read, fixedAt(low-n))
	m.mustMap(n, hostarch.ReadWrite, fixedAt(data), privateFile(newTestMappable(t, m.mf, n), 0))
	m.mustWrite(bss-pageSize, "data")
	m.mustMap(n, hostarch.ReadWrite, fixedAt(bss))
	m.mustFault(low, pageSize, hostarch.Write)
	m.mustFault(lower, pageSize, hostarch.Read)
	m.mustFault(bss, pageSize, hostarch.Write)
	for what, at := range map[string]hostarch.Addr{"data and bss": bss, "a mapping and the one below": low} {
		_, _, left, _ := m.pmaAt(at - pageSize)
		if _, _, right, _ := m.pmaAt(at); left.End != right.Start {
			t.Errorf("%s are at %v and %v", what, left, right)
		}
	}
	m.check()
}

func TestAlikeNeighboursMerge(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 8*pageSize)
	for name, mod := range map[string]mmapMod{
		"anonymous": func(o *memmap.MMapOpts) { o.NameMut = memmap.NameMutAnon },
		"file":      sharedFile(f, 0),
	} {
		addr := m.mustMap(8*pageSize, hostarch.ReadWrite, mod)
		mid, n := addr+2*pageSize, uint64(3*pageSize)
		for what, change := range map[string][2]func() error{
			"permissions": {
				func() error { return m.MProtect(mid, n, hostarch.Read, false) },
				func() error { return m.MProtect(mid, n, hostarch.ReadWrite, false) },
			},
			"lock": {
				func() error { return m.MLock(m.ctx, mid, n, memmap.MLockLazy) },
				func() error { return m.MLock(m.ctx, mid, n, memmap.MLockNone) },
			},
			"dontfork": {
				func() error { return m.SetDontFork(mid, n, true) },
				func() error { return m.SetDontFork(mid, n, false) },
			},
			"policy": {
				func() error { return m.SetNumaPolicy(mid, n, linux.MPOL_BIND, 1) },
				func() error { return m.SetNumaPolicy(mid, n, linux.MPOL_DEFAULT, 0) },
			},
		} {
			for i, want := range []hostarch.AddrRange{rangeAt(mid, n), rangeAt(addr, 8*pageSize)} {
				if err := change[i](); err != nil {
					t.Fatalf("%s, %s: %v", name, what, err)
				}
				if ar, _ := m.FindVMARange(mid); ar != want {
					t.Errorf("%s, %s changed %d times: the mapping is %v, want %v", name, what, i+1, ar, want)
				}
				m.check()
			}
		}
	}
}

func TestMlockBeyondTheEndOfAFile(t *testing.T) {
	// Linux: the SIGBUS that populating meets is EFAULT to mlock, which says ENOMEM.
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	addr := m.mustMap(2*pageSize, hostarch.Read, sharedFile(f, 0))
	mustFailWith(t, "mlock", m.MLock(m.ctx, addr, 2*pageSize, memmap.MLockEager), linuxerr.ENOMEM)
	if v, ar, _ := m.vmaAt(addr); v.mlockMode != memmap.MLockEager || ar.Length() != 2*pageSize {
		t.Errorf("%v is locked: %v; mlock marks what it cannot populate", ar, v.mlockMode)
	}
}

func TestMlockPopulates(t *testing.T) {
	m := newTestMM(t)
	addr := m.mustMap(3*pieceSize, hostarch.ReadWrite)
	if err := m.MLock(m.ctx, addr+1, 2*pieceSize-1, memmap.MLockLazy); err != nil || m.ResidentSetSize() != 0 {
		t.Fatalf("locking lazily made %#x bytes resident, %v", m.ResidentSetSize(), err)
	}
	if err := m.MLock(m.ctx, addr+1, 2*pieceSize-1, memmap.MLockEager); err != nil {
		t.Fatal(err)
	}
	if got := m.residentBytes(rangeAt(addr, 2*pieceSize)); got != 2*pieceSize || m.as.mappedPages(rangeAt(addr, 2*pieceSize)) != got {
		t.Errorf("%#x bytes of a locked range are resident", got)
	}
	if err := m.MLockAll(m.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager}); err != nil {
		t.Fatal(err)
	}
	next := m.mustMap(2*pieceSize, hostarch.ReadWrite)
	if got := m.residentBytes(rangeAt(next, 2*pieceSize)); got != 2*pieceSize {
		t.Errorf("%#x bytes of a future mapping are resident", got)
	}
	mustFailWith(t, "giving locked memory up", m.Decommit(next, pageSize), linuxerr.EINVAL)
	m.mustMap(pageSize, hostarch.NoAccess)
	if err := m.MLockAll(m.ctx, MLockAllOpts{Current: true, Mode: memmap.MLockEager}); err != nil {
		t.Errorf("mlockall with inaccessible memory: %v", err)
	}
	if m.residentBytes(rangeAt(addr, 3*pieceSize)) != 3*pieceSize {
		t.Error("mlockall did not populate")
	}
	mustFailWith(t, "neither current nor future", m.MLockAll(m.ctx, MLockAllOpts{Mode: memmap.MLockEager}), linuxerr.EINVAL)
	m.check()
}

func TestDontneedOfPartsOfHugePages(t *testing.T) {
	//	|   huge page   |   huge page   |
	//	      |--- given up ---|
	const huge = hostarch.HugePageSize
	for _, pinned := range []bool{false, true} {
		mf := newTestFile(t, withHugePages)
		m := newTestMM(t, onRealMemory, withFile(mf))
		addr := m.mustMap(2*huge, hostarch.ReadWrite, fixedAt(m.base))
		full := bytes.Repeat([]byte{7}, 2*huge)
		if err := m.store(addr, full); err != nil {
			t.Fatal(err)
		}
		if p, _, _, _ := m.pmaAt(addr); !p.huge {
			t.Fatal("the pages are not huge")
		}
		gone := rangeAt(addr+16*pageSize, huge)
		var prs []PinnedRange
		if pinned {
			var err error
			if prs, err = m.Pin(m.ctx, gone, hostarch.Write, false); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.Decommit(gone.Start, uint64(gone.Length())); err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(full)
		clear(want[gone.Start-addr : gone.End-addr])
		if got, err := m.load(addr, len(want)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("pinned %t: memory is not what it should be (%v)", pinned, err)
		}
		for _, pr := range prs {
			// The device keeps what it has. (Linux unmaps the page; the pin keeps it.)
			if got := fileBytes(t, pr.File, pr.FileRange()); !bytes.Equal(got, full[:len(got)]) {
				t.Errorf("the pages of %v, which are pinned, were emptied", pr.Source)
			}
		}
		Unpin(prs)
		m.check()
	}
}

func TestDontneedShowsTheFileAgain(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	f := newTestMappable(t, m.mf, 2*pageSize)
	f.set.write(0, []byte("file"))
	private := m.mustMap(pageSize, hostarch.ReadWrite, privateFile(f, 0))
	shared := m.mustMap(pageSize, hostarch.ReadWrite, sharedFile(f, pageSize))
	m.store(private, []byte("mine"))
	m.store(shared, []byte("ours"))
	for addr, want := range map[hostarch.Addr]string{private: "file", shared: "ours"} {
		if err := m.Decommit(addr, pageSize); err != nil {
			t.Fatal(err)
		}
		if got, err := m.load(addr, 4); string(got) != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
}

func TestAnonNames(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	anon := func(mut memmap.NameMut) mmapMod { return func(o *memmap.MMapOpts) { o.NameMut = mut } }
	m.mustMap(2*pageSize, hostarch.Read, fixedAt(m.base), anon(memmap.NameMutAnon))
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base+3*pageSize), anon(memmap.NameMutAnonShmem))
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base+4*pageSize), sharedFile(f, 0))
	mustFailWith(t, "across a hole to a file", m.SetVMAAnonName(m.base+pageSize, 4*pageSize, "x y", false), linuxerr.EBADF)
	for i, want := range []string{"", "[anon:x y]", "-", "[anon_shmem:x y]", ""} {
		if v, _, ok := m.vmaAt(m.base + hostarch.Addr(i)*pageSize); ok && v.name != want {
			t.Errorf("page %d is named %q, want %q", i, v.name, want)
		}
	}
	mustFailWith(t, "across a hole", m.SetVMAAnonName(m.base, 4*pageSize, "", true), linuxerr.ENOMEM)
	if ar, _ := m.FindVMARange(m.base); ar.Length() != 2*pageSize {
		t.Errorf("without names, the mapping is %v", ar)
	}
	for _, bad := range []string{"[x", "x]", "a\\b", "$", "`", "\n", "\x7f"} {
		mustFailWith(t, bad, m.SetVMAAnonName(m.base, pageSize, bad, false), linuxerr.EINVAL)
	}
	m.check()
}

func TestNumaPolicyDoesNotLikeHoles(t *testing.T) {
	m := newTestMM(t)
	m.mustMap(2*pageSize, hostarch.Read, fixedAt(m.base))
	before := m.capture()
	mustFailWith(t, "across a hole", m.SetNumaPolicy(m.base+pageSize, 4*pageSize, linux.MPOL_BIND, 3), linuxerr.EFAULT)
	m.mustBeUnchanged(before)
	if err := m.SetNumaPolicy(m.base+pageSize, pageSize, linux.MPOL_BIND, 3); err != nil {
		t.Fatal(err)
	}
	for i, want := range []linux.NumaPolicy{linux.MPOL_DEFAULT, linux.MPOL_BIND} {
		if p, mask, err := m.NumaPolicy(m.base + hostarch.Addr(i)*pageSize); p != want || err != nil || mask != uint64(i*3) {
			t.Errorf("page %d: policy %d, %d, %v", i, p, mask, err)
		}
	}
	if err := m.SetNumaPolicy(m.base, 4*pageSize, linux.MPOL_DEFAULT, 0); err != nil {
		t.Errorf("taking the policy away, across a hole: %v", err)
	}
	if p, _, _ := m.NumaPolicy(m.base + pageSize); p != linux.MPOL_DEFAULT {
		t.Errorf("the policy is %d still", p)
	}
	_, _, err := m.NumaPolicy(m.base + 2*pageSize)
	mustFailWith(t, "get", err, linuxerr.EFAULT)
}

func TestMsync(t *testing.T) {
	m := newTestMM(t)
	f, g := newTestMappable(t, m.mf, pageSize), newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base), sharedFile(f, 0))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+pageSize), privateFile(f, 0))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+3*pageSize), sharedFile(g, 0))
	if err := m.MSync(m.ctx, m.base, 2*pageSize, MSyncOpts{}); err != nil || f.id.hooks.count("Msync") != 0 {
		t.Errorf("MS_ASYNC: %v, and it synced %d times", err, f.id.hooks.count("Msync"))
	}
	mustFailWith(t, "across a hole", m.MSync(m.ctx, m.base, 4*pageSize, MSyncOpts{Sync: true}), linuxerr.ENOMEM)
	if n, k := f.id.hooks.count("Msync"), g.id.hooks.count("Msync"); n != 1 || k != 1 {
		t.Errorf("synced %d and %d times; there is one shared mapping of each", n, k)
	}
	m.MLock(m.ctx, m.base+3*pageSize, pageSize, memmap.MLockLazy)
	mustFailWith(t, "locked", m.MSync(m.ctx, m.base+3*pageSize, pageSize, MSyncOpts{Invalidate: true}), linuxerr.EBUSY)
	mustFailWith(t, "unaligned", m.MSync(m.ctx, m.base+1, pageSize, MSyncOpts{}), linuxerr.EINVAL)
	f.id.hooks.fail("Msync", 1, linuxerr.EIO)
	mustFailWith(t, "a full disk", m.MSync(m.ctx, m.base, pageSize, MSyncOpts{Sync: true}), linuxerr.EIO)
}

func TestSharedFutexKeys(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 2*pageSize)
	a := m.mustMap(2*pageSize, hostarch.ReadWrite, sharedFile(f, 0))
	b := m.mustMap(pageSize, hostarch.ReadWrite, sharedFile(f, pageSize))
	anon := m.mustMap(pageSize, hostarch.ReadWrite)
	hidden := m.mustMap(pageSize, hostarch.NoAccess)
	get := func(addr hostarch.Addr) futex.Key {
		k, err := m.GetSharedFutexKey(m.ctx, addr)
		if err != nil {
			t.Fatalf("key of %#x: %v", addr, err)
		}
		if k.MappingIdentity != nil {
			k.MappingIdentity.DecRef(m.ctx)
		}
		return k
	}
	if x, y := get(a+pageSize+4), get(b+4); x != y || x.Kind != futex.KindSharedMappable || x.Offset != pageSize+4 {
		t.Errorf("one word has the keys %+v and %+v", x, y)
	}
	if get(a) == get(a+4) {
		t.Error("two words have one key")
	}
	if k := get(anon + 8); k.Kind != futex.KindSharedPrivate || k.Offset != uint64(anon+8) {
		t.Errorf("private memory has the key %+v", k)
	}
	for _, addr := range []hostarch.Addr{hidden, m.base, ^hostarch.Addr(0)} {
		_, err := m.GetSharedFutexKey(m.ctx, addr)
		mustFailWith(t, "no readable memory", err, linuxerr.EFAULT)
	}
}

func TestFindVMAByName(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 4*pageSize)
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base), named("a"))
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base+2*pageSize), sharedFile(f, pageSize), named("b"))
	all := rangeAt(m.base, 8*pageSize)
	if addr, off, err := m.FindVMAByName(all, "b"); addr != m.base+2*pageSize || off != pageSize || err != nil {
		t.Errorf("b is at %#x, offset %#x, %v", addr, off, err)
	}
	for name, ar := range map[string]hostarch.AddrRange{"c": all, "b": rangeAt(m.base, 2*pageSize)} {
		if addr, _, err := m.FindVMAByName(ar, name); err == nil {
			t.Errorf("%s was found at %#x, in %v", name, addr, ar)
		}
	}
}

func TestInvalidateUnsavableAsksAllMappables(t *testing.T) {
	m := newTestMM(t)
	f, g := newTestMappable(t, m.mf, pageSize), newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.Read, sharedFile(f, 0))
	m.mustMap(pageSize, hostarch.Read)
	m.mustMap(pageSize, hostarch.Read, privateFile(g, 0))
	if err := m.InvalidateUnsavable(m.ctx); err != nil || f.count("InvalidateUnsavable") != 1 || g.count("InvalidateUnsavable") != 1 {
		t.Errorf("InvalidateUnsavable: %v", err)
	}
	g.fail("InvalidateUnsavable", 1, linuxerr.EIO)
	mustFailWith(t, "a Mappable that cannot", m.InvalidateUnsavable(m.ctx), linuxerr.EIO)
}

func TestRestoredMappingsAreWhatTheyWere(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 4*pageSize)
	stack := func(o *memmap.MMapOpts) { o.Stack = true }
	for i, mods := range [][]mmapMod{
		{growsDown}, {stack}, {named("x")}, {sharedFile(f, pageSize)}, {privateFile(f, 0), maxPerms(hostarch.ReadExecute)}, {locked(memmap.MLockLazy)},
	} {
		addr := m.base + hostarch.Addr(2*i)*pageSize
		m.mustMap(pageSize, hostarch.Read, append(mods, fixedAt(addr))...)
		m.mustFault(addr, pageSize, hostarch.Read)
	}
	m.SetDontFork(m.base, pageSize, true)
	m.SetNumaPolicy(m.base+2*pageSize, pageSize, linux.MPOL_BIND, 1)
	m.BrkSetup(m.ctx, m.base+1<<20)
	m.Brk(m.ctx, m.base+1<<20+17)
	if _, err := m.Pin(m.ctx, rangeAt(m.base, pageSize), hostarch.Read, false); err != nil {
		t.Fatal(err)
	}
	p, _, page, _ := m.pmaAt(m.base)
	p.file.DecRef(page)
	m.MLockAll(m.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockLazy})
	vmas, sums := m.describeVMAs()
	pmas := m.describePMAs()
	pinned := m.hasPinned
	r := m.saveAndRestore()
	r.check()
	gotVMAs, gotSums := r.describeVMAs()
	mustBeEqual(t, captured{"vmas": vmas, "sums": sums, "pmas": pmas}, captured{"vmas": gotVMAs, "sums": gotSums, "pmas": r.describePMAs()})
	if r.hasPinned != pinned || r.MaxResidentSetSize() != m.MaxResidentSetSize() {
		t.Error("some of it was not restored")
	}
}
