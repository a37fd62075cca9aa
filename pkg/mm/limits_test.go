package mm

import (
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims of this file: RLIMIT_AS, RLIMIT_DATA and RLIMIT_MEMLOCK refuse what Linux
// refuses, with the same error, and allow what Linux allows; and whatever is refused
// has changed nothing.
//
// Every row was run on Linux 6.18 with a program that makes the same calls at the
// same distance from the limit; "Linux 6.18" in a row is what that printed. Where the
// design knowingly does something else, the row says so in its name and comment.

// limited is an address space with one mapping of each kind, far from each other.
//
//	data    8 pages, private, read-write, populated
//	none    8 pages, private, inaccessible
//	read    8 pages, private, read-only
//	shared  8 pages, MAP_SHARED, read-only
//	heap    empty
type limited struct {
	*testMM
	data, none, read, shared, hole, heap hostarch.Addr
}

func newLimited(t testing.TB) *limited {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 64*pageSize)
	at := func(page int) hostarch.Addr { return m.base + hostarch.Addr(page*pageSize) }
	l := &limited{testMM: m, data: at(0), none: at(0x100), read: at(0x200), shared: at(0x300), hole: at(0x400), heap: at(0x500)}
	m.mustMap(8*pageSize, hostarch.ReadWrite, fixedAt(l.data))
	m.mustMap(8*pageSize, hostarch.NoAccess, fixedAt(l.none))
	m.mustMap(8*pageSize, hostarch.Read, fixedAt(l.read))
	m.mustMap(8*pageSize, hostarch.Read, fixedAt(l.shared), sharedFile(f, 0))
	m.BrkSetup(m.ctx, l.heap)
	return l
}

// leave sets a limit so that pages more are allowed than are used.
func (l *limited) leave(which limits.LimitType, pages int) {
	c := l.vmas.Snapshot().Meta()
	used := map[limits.LimitType]uint64{limits.AS: c.as, limits.Data: c.data, limits.MemoryLocked: c.locked}[which]
	l.ctx.limit(which, used+uint64(pages*pageSize))
}

// The calls of the rows, all of whole pages.

func (l *limited) mapAnywhere(pages uint64, perms hostarch.AccessType, mods ...mmapMod) error {
	_, err := l.mmap(pages*pageSize, perms, mods...)
	return err
}

func (l *limited) mapAt(addr hostarch.Addr, pages uint64, perms hostarch.AccessType, mods ...mmapMod) error {
	return l.mapAnywhere(pages, perms, append(mods, fixedAt(addr))...)
}

func (l *limited) remap(addr hostarch.Addr, from, to uint64, mode MRemapMoveMode, dst ...hostarch.Addr) error {
	opts := MRemapOpts{Move: mode}
	if len(dst) != 0 {
		opts.NewAddr = dst[0]
	}
	_, err := l.MRemap(l.ctx, addr, from*pageSize, to*pageSize, opts)
	return err
}

func (l *limited) protect(addr hostarch.Addr, perms hostarch.AccessType) error {
	return l.MProtect(addr, 8*pageSize, perms, false)
}

func (l *limited) brkTo(pages uint64) error {
	_, err := l.Brk(l.ctx, l.heap+hostarch.Addr(pages*pageSize))
	return err
}

func (l *limited) lock(addr hostarch.Addr, pages uint64) error {
	return l.MLock(l.ctx, addr, pages*pageSize, memmap.MLockEager)
}

// limitRow is a call and what has to come of it.
type limitRow struct {
	name  string
	spare int // pages between what is used and the limit
	call  func(l *limited) error
	want  *errors.Error // nil, or Linux 6.18's errno
}

func runLimitRows(t *testing.T, which limits.LimitType, prepare func(l *limited), rows []limitRow) {
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			l := newLimited(t)
			if prepare != nil {
				prepare(l)
			}
			l.leave(which, row.spare)
			before := l.capture()
			l.as.forget()
			err := row.call(l)
			if !linuxerr.Equals(row.want, err) {
				t.Errorf("got %v; Linux 6.18: %v", err, row.want)
			}
			l.check()
			if err != nil {
				l.mustBeUnchanged(before)
				if calls := l.as.history(); len(calls) != 0 {
					t.Errorf("the host was called for what was refused:\n%s", callString(calls))
				}
			}
		})
	}
}

func TestAddressSpaceLimit(t *testing.T) {
	runLimitRows(t, limits.AS, nil, []limitRow{
		{"anything new, even inaccessible", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.NoAccess) }, linuxerr.ENOMEM},
		{"exactly what is left", 1, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read) }, nil},
		{"fixed over as much", 0, func(l *limited) error { return l.mapAt(l.data, 8, hostarch.ReadWrite) }, nil},
		// may_expand_vm gets 0 pages and compares all the same.
		{"fixed over as much, limit exceeded before", -1, func(l *limited) error { return l.mapAt(l.data, 8, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"fixed over 8 pages and 4 of hole, 3 left", 3, func(l *limited) error { return l.mapAt(l.data, 12, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"fixed over 8 pages and 3 of hole, 3 left", 3, func(l *limited) error { return l.mapAt(l.data, 11, hostarch.ReadWrite) }, nil},
		{"mprotect, exceeded before", -1, func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }, nil},
		{"munmap, exceeded before", -1, func(l *limited) error { return l.MUnmap(l.ctx, l.data, pageSize) }, nil},
		{"mremap, in place by 2, 1 left", 1, func(l *limited) error { return l.remap(l.data, 8, 10, MRemapNoMove) }, linuxerr.ENOMEM},
		{"mremap, in place by 1, 1 left", 1, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapNoMove) }, nil},
		{"mremap, may move, none left", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapMayMove) }, linuxerr.ENOMEM},
		{"mremap, move and grow, none left", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapMustMove, l.hole) }, linuxerr.ENOMEM},
		// vma_to_resize, check_prep_vma: nothing is checked unless it grows.
		{"mremap, move only, exceeded before", -1, func(l *limited) error { return l.remap(l.data, 8, 8, MRemapMustMove, l.hole) }, nil},
		{"mremap, move and shrink, exceeded before", -1, func(l *limited) error { return l.remap(l.data, 8, 4, MRemapMustMove, l.hole) }, nil},
		{"mremap, shrink, exceeded before", -1, func(l *limited) error { return l.remap(l.data, 8, 4, MRemapNoMove) }, nil},
		{"mremap, second mapping, none left", 0, func(l *limited) error { return l.remap(l.shared, 0, 1, MRemapMayMove) }, linuxerr.ENOMEM},
		{"mremap, second mapping, exactly left", 1, func(l *limited) error { return l.remap(l.shared, 0, 1, MRemapMayMove) }, nil},
	})
}

func TestAddressSpaceLimitOfHeap(t *testing.T) {
	runLimitRows(t, limits.AS, func(l *limited) { l.brkTo(2) }, []limitRow{
		{"up, none left", 0, func(l *limited) error { return l.brkTo(3) }, linuxerr.ENOMEM},
		{"up, exactly left", 1, func(l *limited) error { return l.brkTo(3) }, nil},
		{"down, exceeded before", -1, func(l *limited) error { return l.brkTo(1) }, nil},
		{"nowhere, exceeded before", -1, func(l *limited) error { return l.brkTo(2) }, nil},
	})
}

func TestDataLimit(t *testing.T) {
	runLimitRows(t, limits.Data, nil, []limitRow{
		{"private writable", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"private writable only", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.Write) }, linuxerr.ENOMEM},
		{"exactly what is left", 1, func(l *limited) error { return l.mapAnywhere(1, hostarch.ReadWrite) }, nil},
		{"private read-only", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read) }, nil},
		{"shared writable", 0, func(l *limited) error {
			return l.mapAnywhere(1, hostarch.ReadWrite, sharedFile(l.w.maps[0], 0))
		}, nil},
		{"private file, writable", 0, func(l *limited) error {
			return l.mapAnywhere(1, hostarch.ReadWrite, privateFile(l.w.maps[0], 0))
		}, linuxerr.ENOMEM},
		// is_data_mapping spares VM_STACK, which is VM_GROWSDOWN; MAP_STACK is nothing.
		{"grows down", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.ReadWrite, growsDown) }, nil},
		{"MAP_STACK", 0, func(l *limited) error {
			return l.mapAnywhere(1, hostarch.ReadWrite, func(o *memmap.MMapOpts) { o.Stack = true })
		}, linuxerr.ENOMEM},
		{"fixed over as much data", 0, func(l *limited) error { return l.mapAt(l.data, 8, hostarch.ReadWrite) }, nil},
		// may_expand_vm gets the growth of the address space, which is none.
		{"fixed over as much that is not data", 0, func(l *limited) error { return l.mapAt(l.read, 8, hostarch.ReadWrite) }, nil},
		{"fixed over as much, exceeded before", -1, func(l *limited) error { return l.mapAt(l.data, 8, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"mprotect makes data", 0, func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"mprotect makes data, one page short", 7, func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"mprotect makes data, exactly left", 8, func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }, nil},
		{"mprotect of data", -1, func(l *limited) error { return l.protect(l.data, hostarch.AnyAccess) }, nil},
		{"mprotect of shared", 0, func(l *limited) error { return l.protect(l.shared, hostarch.ReadWrite) }, nil},
		{"mremap, in place", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapNoMove) }, linuxerr.ENOMEM},
		{"mremap, may move", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapMayMove) }, linuxerr.ENOMEM},
		{"mremap of what is not data", 0, func(l *limited) error { return l.remap(l.read, 8, 9, MRemapNoMove) }, nil},
		{"mremap, move only, exceeded before", -1, func(l *limited) error { return l.remap(l.data, 8, 8, MRemapMustMove, l.hole) }, nil},
		{"brk, exactly left", 1, func(l *limited) error { return l.brkTo(1) }, nil},
		{"brk, none left", 0, func(l *limited) error { return l.brkTo(1) }, linuxerr.ENOMEM},
	})
}

// mprotect_fixup refuses what only new permissions are to blame for: a process that has no address space left either may go on.
func TestDataLimitWithoutAddressSpace(t *testing.T) {
	without := func(pages int) func(l *limited) {
		return func(l *limited) {
			l.ctx.limit(limits.AS, l.vmas.Snapshot().Meta().as+uint64(pages*pageSize))
		}
	}
	protect := func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }
	runLimitRows(t, limits.Data, without(7), []limitRow{{"mprotect, one page of address space short", 0, protect, nil}})
	runLimitRows(t, limits.Data, without(8), []limitRow{{"mprotect, address space left", 0, protect, linuxerr.ENOMEM}})
}

// Valgrind sets the soft limit to 0 and counts by itself; Linux then looks at the
// hard one (may_expand_vm). For brk it does not (check_data_rlimit).
func TestDataLimitOfZeroMeansHardLimit(t *testing.T) {
	for _, row := range []struct {
		name string
		hard int // pages left below the hard limit; -1 is no limit
		call func(l *limited) error
		want *errors.Error
	}{
		{"mmap, no hard limit", -1, func(l *limited) error { return l.mapAnywhere(1, hostarch.ReadWrite) }, nil},
		{"mprotect, no hard limit", -1, func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }, nil},
		{"brk, no hard limit", -1, func(l *limited) error { return l.brkTo(1) }, linuxerr.ENOMEM},
		{"mmap, hard limit reached", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.ReadWrite) }, linuxerr.ENOMEM},
		{"mmap, hard limit not reached", 1, func(l *limited) error { return l.mapAnywhere(1, hostarch.ReadWrite) }, nil},
		{"mprotect, hard limit reached", 0, func(l *limited) error { return l.protect(l.read, hostarch.ReadWrite) }, linuxerr.ENOMEM},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLimited(t)
			limit := limits.Limit{Cur: 0, Max: limits.Infinity}
			if row.hard >= 0 {
				limit.Max = l.vmas.Snapshot().Meta().data + uint64(row.hard*pageSize)
			}
			l.ctx.limits.SetUnchecked(limits.Data, limit)
			before := l.capture()
			err := row.call(l)
			if !linuxerr.Equals(row.want, err) {
				t.Errorf("got %v; Linux 6.18: %v", err, row.want)
			}
			l.check()
			if err != nil {
				l.mustBeUnchanged(before)
			}
		})
	}
}

// mlocks prepares for RLIMIT_MEMLOCK: data is locked.
func mlocks(l *limited) {
	if err := l.lock(l.data, 8); err != nil {
		l.t.Fatalf("MLock without a limit: %v", err)
	}
}

func TestMemlockLimit(t *testing.T) {
	eager := locked(memmap.MLockEager)
	all := MLockAllOpts{Current: true, Mode: memmap.MLockEager}
	runLimitRows(t, limits.MemoryLocked, mlocks, []limitRow{
		{"mlock, none left", 0, func(l *limited) error { return l.lock(l.read, 1) }, linuxerr.ENOMEM},
		{"mlock, exactly left", 8, func(l *limited) error { return l.lock(l.read, 8) }, nil},
		{"mlock, one page short", 7, func(l *limited) error { return l.lock(l.read, 8) }, linuxerr.ENOMEM},
		// do_mlock takes off what is locked there already.
		{"mlock of what is locked", 0, func(l *limited) error { return l.lock(l.data, 8) }, nil},
		{"mlock of part of it", 0, func(l *limited) error { return l.lock(l.data+2*pageSize, 3) }, nil},
		{"mlock2 of what is locked", 0, func(l *limited) error {
			return l.MLock(l.ctx, l.data, 8*pageSize, memmap.MLockLazy)
		}, nil},
		{"munlock, exceeded before", -1, func(l *limited) error {
			return l.MLock(l.ctx, l.data, 8*pageSize, memmap.MLockNone)
		}, nil},
		{"mmap, none left", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read, eager) }, linuxerr.EAGAIN},
		{"mmap of a shared file, none left", 0, func(l *limited) error {
			return l.mapAnywhere(1, hostarch.Read, eager, sharedFile(l.w.maps[0], 0))
		}, linuxerr.EAGAIN},
		{"mmap, exactly left", 1, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read, eager) }, nil},
		{"mmap, not locked", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read) }, nil},
		// mlockall compares the whole address space.
		{"mlockall", 0, func(l *limited) error { return l.MLockAll(l.ctx, all) }, linuxerr.ENOMEM},
		{"mlockall, one page short", 23, func(l *limited) error { return l.MLockAll(l.ctx, all) }, linuxerr.ENOMEM},
		{"mlockall, exactly enough", 24, func(l *limited) error { return l.MLockAll(l.ctx, all) }, nil},
		{"munlockall, exceeded before", -1, func(l *limited) error {
			return l.MLockAll(l.ctx, MLockAllOpts{Current: true, Future: true})
		}, nil},
		{"mlockall of the future, none left", 0, func(l *limited) error {
			return l.MLockAll(l.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager})
		}, nil},
		{"mremap, in place", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapNoMove) }, linuxerr.EAGAIN},
		{"mremap, in place, exactly left", 1, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapNoMove) }, nil},
		{"mremap, may move", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapMayMove) }, linuxerr.EAGAIN},
		{"mremap, move and grow", 0, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapMustMove, l.hole) }, linuxerr.EAGAIN},
		{"mremap, move only, exceeded before", -1, func(l *limited) error { return l.remap(l.data, 8, 8, MRemapMustMove, l.hole) }, nil},
		{"mremap, shrink, exceeded before", -1, func(l *limited) error { return l.remap(l.data, 8, 4, MRemapNoMove) }, nil},
		{"mremap of what is not locked", 0, func(l *limited) error { return l.remap(l.read, 8, 9, MRemapNoMove) }, nil},
		// check_prep_vma comes before the search for room.
		{"mremap, in place, no room either", 0, func(l *limited) error {
			l.ctx.limit(limits.MemoryLocked, limits.Infinity)
			l.mustMap(pageSize, hostarch.NoAccess, fixedAt(l.data+8*pageSize))
			l.leave(limits.MemoryLocked, 0)
			before := l.capture()
			err := l.remap(l.data, 8, 9, MRemapNoMove)
			l.mustBeUnchanged(before)
			l.mustUnmap(l.data+8*pageSize, pageSize)
			l.as.forget()
			return err
		}, linuxerr.EAGAIN},
	})
}

func TestMemlockLimitOfZero(t *testing.T) {
	eager := locked(memmap.MLockEager)
	runLimitRows(t, limits.MemoryLocked, nil, []limitRow{
		{"mlock", 0, func(l *limited) error { return l.lock(l.data, 1) }, linuxerr.EPERM},
		{"mlock of nothing", 0, func(l *limited) error { return l.lock(l.data, 0) }, linuxerr.EPERM},
		{"mlock of what is not mapped", 0, func(l *limited) error { return l.lock(l.hole, 1) }, linuxerr.EPERM},
		{"mlock2", 0, func(l *limited) error { return l.MLock(l.ctx, l.data, pageSize, memmap.MLockLazy) }, linuxerr.EPERM},
		{"munlock", 0, func(l *limited) error { return l.MLock(l.ctx, l.data, pageSize, memmap.MLockNone) }, nil},
		{"mmap", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read, eager) }, linuxerr.EPERM},
		{"mlockall of the present", 0, func(l *limited) error {
			return l.MLockAll(l.ctx, MLockAllOpts{Current: true, Mode: memmap.MLockEager})
		}, linuxerr.EPERM},
		// can_do_mlock comes first, whatever is to be locked.
		{"mlockall of the future", 0, func(l *limited) error {
			return l.MLockAll(l.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager})
		}, linuxerr.EPERM},
		{"munlockall", 0, func(l *limited) error {
			return l.MLockAll(l.ctx, MLockAllOpts{Current: true, Future: true})
		}, nil},
	})
}

// After mlockall(MCL_FUTURE) everything new is locked, and counts.
func TestMemlockLimitOfFutureMappings(t *testing.T) {
	future := func(l *limited) {
		if err := l.MLockAll(l.ctx, MLockAllOpts{Future: true, Mode: memmap.MLockEager}); err != nil {
			l.t.Fatal(err)
		}
	}
	runLimitRows(t, limits.MemoryLocked, future, []limitRow{
		{"mmap, one page short", 3, func(l *limited) error { return l.mapAnywhere(4, hostarch.ReadWrite) }, linuxerr.EAGAIN},
		{"mmap, exactly left", 4, func(l *limited) error { return l.mapAnywhere(4, hostarch.ReadWrite) }, nil},
		{"shared, none left", 0, func(l *limited) error {
			return l.mapAnywhere(1, hostarch.Read, sharedFile(l.w.maps[0], 0))
		}, linuxerr.EAGAIN},
		// EPERM is for those who asked for it.
		{"mmap, limit 0", 0, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read) }, linuxerr.EAGAIN},
		{"mmap with MAP_LOCKED, limit 0", 0, func(l *limited) error {
			return l.mapAnywhere(1, hostarch.Read, locked(memmap.MLockEager))
		}, linuxerr.EPERM},
		// brk(2) shows no errno but the old end.
		{"brk, none left", 0, func(l *limited) error { return l.brkTo(1) }, linuxerr.EAGAIN},
	})
}

func TestMemlockLimitDoesNotBindCapIPCLock(t *testing.T) {
	eager := locked(memmap.MLockEager)
	able := func(l *limited) {
		mlocks(l)
		l.ctx.allowIPCLock(true)
	}
	for spare := -8; spare <= -7; spare++ { // limits of 0 and of less than is locked
		runLimitRows(t, limits.MemoryLocked, able, []limitRow{
			{"mlock", spare, func(l *limited) error { return l.lock(l.read, 8) }, nil},
			{"mmap", spare, func(l *limited) error { return l.mapAnywhere(1, hostarch.Read, eager) }, nil},
			{"mremap", spare, func(l *limited) error { return l.remap(l.data, 8, 9, MRemapMayMove) }, nil},
			{"mlockall", spare, func(l *limited) error {
				return l.MLockAll(l.ctx, MLockAllOpts{Current: true, Future: true, Mode: memmap.MLockEager})
			}, nil},
		})
	}
}

// Linux 6.18 refuses each of these (mmap EAGAIN, mremap ENOMEM and EAGAIN): it
// compares before it unmaps what is in the way. The design deducts what is replaced
// MProtect has no context. It knows the limits of the process all the same: from the
// last fault or change of a mapping, from before a checkpoint, and from fork.
func TestMprotectKnowsTheLimits(t *testing.T) {
	refuses := func(t *testing.T, m *testMM, addr hostarch.Addr, want bool) {
		t.Helper()
		err := m.MProtect(addr, 8*pageSize, hostarch.ReadWrite, false)
		if refused := linuxerr.Equals(linuxerr.ENOMEM, err); refused != want || !refused && err != nil {
			t.Errorf("got %v; refused should be %t", err, want)
		}
	}
	t.Run("in a forked child", func(t *testing.T) {
		l := newLimited(t)
		l.leave(limits.Data, 7)
		refuses(t, l.fork(), l.read, true)
	})
	t.Run("in a forked child, not the parent's later ones", func(t *testing.T) {
		l := newLimited(t)
		child := l.fork()
		l.leave(limits.Data, 7)
		refuses(t, child, l.read, false)
	})
	t.Run("after a restore", func(t *testing.T) {
		l := newLimited(t)
		l.leave(limits.Data, 7)
		refuses(t, l.saveAndRestore(), l.read, true)
	})
	t.Run("after a restore, set after it", func(t *testing.T) {
		l := newLimited(t)
		r := l.saveAndRestore()
		r.ctx.limit(limits.Data, 8*pageSize)
		refuses(t, r, l.read, false)
		// The process has its limits back by its first fault.
		r.fault(l.data, hostarch.Read)
		refuses(t, r, l.none, true)
	})
	t.Run("of who faulted last", func(t *testing.T) {
		l := newLimited(t)
		other := *l.testMM
		other.ctx = l.ctx.clone()
		other.ctx.limit(limits.Data, 8*pageSize)
		other.mustFault(l.data, pageSize, hostarch.Read)
		refuses(t, l.testMM, l.read, true)
	})
	t.Run("nobody's if nobody has come", func(t *testing.T) {
		m := newTestMM(t)
		r := m.saveAndRestore()
		if l := r.limits.Load(); l != nil {
			t.Errorf("limits are %v", l)
		}
	})
}

// in every operation, as Linux itself does for mmap and RLIMIT_AS.
func TestLimitsDeductWhatIsReplacedEvenWhereLinuxDoesNot(t *testing.T) {
	for name, test := range map[string]struct {
		which limits.LimitType
		call  func(l *limited) error
	}{
		"locked over locked": {limits.MemoryLocked, func(l *limited) error {
			return l.mapAt(l.data, 8, hostarch.ReadWrite, locked(memmap.MLockEager))
		}},
		"mremap grows by 4 pages over 8": {limits.AS, func(l *limited) error {
			return l.remap(l.read, 4, 8, MRemapMustMove, l.none)
		}},
		"mremap grows locked by 4 pages over 8 locked": {limits.MemoryLocked, func(l *limited) error {
			return l.remap(l.read, 4, 8, MRemapMustMove, l.data)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimited(t)
			mlocks(l)
			l.lock(l.read, 8)
			l.leave(test.which, 0)
			if err := test.call(l); err != nil {
				t.Error(err)
			}
			l.check()
		})
	}
}
