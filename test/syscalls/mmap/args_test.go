// Claims which arguments mmap refuses, with which error, and that a refused call changes nothing.
package mmap

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// call is what mmap is called with: addr relative to the arena unless absolute, fd -1 unless file.
type call struct {
	addr     uintptr
	absolute bool
	length   uintptr
	prot     int
	flags    int
	file     bool
	offset   int64
}

func TestArgumentsRefused(t *testing.T) {
	page := uintptr(kit.PageSize)
	for name, c := range map[string]struct {
		call
		want unix.Errno
	}{
		"length 0":                             {call{length: 0, flags: anon}, unix.EINVAL},
		"length 0 of a file":                   {call{length: 0, flags: unix.MAP_PRIVATE, file: true}, unix.EINVAL},
		"length that overflows":                {call{length: ^uintptr(0), flags: anon}, unix.ENOMEM},
		"length beyond the address space":      {call{length: 1 << 62, flags: anon}, unix.ENOMEM},
		"neither shared nor private":           {call{length: page, flags: unix.MAP_ANONYMOUS}, unix.EINVAL},
		"file neither shared nor private":      {call{length: page, flags: 0, file: true}, unix.EINVAL},
		"anonymous and validated":              {call{length: page, flags: unix.MAP_ANONYMOUS | unix.MAP_SHARED_VALIDATE}, unix.EINVAL},
		"offset not aligned":                   {call{length: page, flags: unix.MAP_PRIVATE, file: true, offset: 1}, unix.EINVAL},
		"offset not aligned, anonymous":        {call{length: page, flags: anon, offset: 1}, unix.EINVAL},
		"offset not aligned, shared anonymous": {call{length: page, flags: shared, offset: 1}, unix.EINVAL},
		"offset plus length overflows":         {call{length: 2 * page, flags: unix.MAP_PRIVATE, file: true, offset: -int64(page)}, unix.EOVERFLOW},
		"fixed address not aligned":            {call{addr: 1, length: page, flags: anon | fixed}, unix.EINVAL},
		"noreplace address not aligned":        {call{addr: 1, length: page, flags: anon | unix.MAP_FIXED_NOREPLACE}, unix.EINVAL},
		"fixed beyond the address space":       {call{addr: 1 << 62, absolute: true, length: page, flags: anon | fixed}, unix.ENOMEM},
		"fixed and length out of space":        {call{length: 1 << 61, flags: anon | fixed}, unix.ENOMEM},
		"noreplace beyond address space":       {call{addr: 1 << 62, absolute: true, length: page, flags: anon | unix.MAP_FIXED_NOREPLACE}, unix.ENOMEM},
		"grows down and shared":                {call{length: page, flags: shared | unix.MAP_GROWSDOWN}, unix.EINVAL},
		"grows down and private file":          {call{length: page, flags: unix.MAP_PRIVATE | unix.MAP_GROWSDOWN, file: true}, unix.EINVAL},
		"grows down and shared file":           {call{length: page, flags: unix.MAP_SHARED | unix.MAP_GROWSDOWN, file: true}, unix.EINVAL},
		"validated with a flag nobody knows":   {call{length: page, flags: unix.MAP_SHARED_VALIDATE | 1<<24, file: true}, unix.EOPNOTSUPP},
		"validated with MAP_SYNC, no DAX":      {call{length: page, flags: unix.MAP_SHARED_VALIDATE | unix.MAP_SYNC, file: true}, unix.EOPNOTSUPP},
		"descriptor that is not open":          {call{length: page, flags: unix.MAP_PRIVATE}, unix.EBADF},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Anon(t, 0, 2, rw, 0)
			a.Fill(t, 0, 2, 1)
			addr, fd := a.Base+c.addr, -1
			if c.absolute {
				addr = c.addr
			}
			if c.file {
				fd = kit.File(t, 1)
			}
			r := kit.Me.Mmap(addr, c.length, ro, c.flags, fd, c.offset)
			kit.Say(t, "%s", kit.ErrnoName(r.Errno))
			assert.Equal(t, c.want, r.Errno)
			assert.Equal(t, []string{"p0-p2 rw-p 0"}, a.Layout(t, kit.Me))
			assert.Equal(t, []string{"01", "02"}, a.Bytes(kit.Me, 0, 2))
		})
	}
}

// Flags that older kernels knew, and bits that they did not, are ignored unless validation is asked for.
func TestFlagsIgnored(t *testing.T) {
	for name, flag := range map[string]int{
		"MAP_DENYWRITE":  unix.MAP_DENYWRITE,
		"MAP_EXECUTABLE": unix.MAP_EXECUTABLE,
		"MAP_NONBLOCK":   unix.MAP_NONBLOCK,
		"MAP_STACK":      unix.MAP_STACK,
		"MAP_NORESERVE":  unix.MAP_NORESERVE,
		"bit 24":         1 << 24,
	} {
		for kind, flags := range map[string]int{"anonymous": anon, "private": unix.MAP_PRIVATE, "shared": unix.MAP_SHARED} {
			t.Run(name+" "+kind, func(t *testing.T) {
				a := kit.NewArena(t, 2)
				fd := -1
				if flags != anon {
					fd = kit.File(t, 2)
				}
				a.Map(t, 0, 2, rw, flags|flag, fd, 0)
				assert.False(t, kit.Me.Store(a.Page(1), 7).Faulted())
				kit.Say(t, "%v", a.Bytes(kit.Me, 0, 2))
				kit.Say(t, "%v", len(a.Maps(t, kit.Me)))
			})
		}
	}
}

// MAP_SHARED_VALIDATE with flags that are known is MAP_SHARED.
func TestValidatedMappingIsShared(t *testing.T) {
	for name, flags := range map[string]int{"alone": 0, "populate": unix.MAP_POPULATE, "noreserve": unix.MAP_NORESERVE} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			fd := kit.File(t, 1)
			r := kit.Me.Mmap(a.Base, kit.Len(1), rw, unix.MAP_SHARED_VALIDATE|fixed|flags, fd, 0)
			kit.Say(t, "%s", kit.ErrnoName(r.Errno))
			require.True(t, r.OK(), "%v", r)
			kit.Me.Store(a.Base, 7)
			assert.Equal(t, "07", fileByte(t, fd, 0))
		})
	}
}

// Bits of the protection that mean nothing are ignored by mmap, unlike by mprotect.
func TestUnknownProtectionIsIgnored(t *testing.T) {
	a := kit.NewArena(t, 1)
	a.Anon(t, 0, 1, rw|1<<28, 0)
	kit.Say(t, "%v", a.Layout(t, kit.Me))
	assert.Equal(t, []string{"p0-p1 rw-p 0"}, a.Layout(t, kit.Me))
}

// The descriptor means nothing to an anonymous mapping.
func TestAnonymousIgnoresDescriptor(t *testing.T) {
	for name, fd := range map[string]int{"not open": 1 << 20, "stdin": 0, "-2": -2} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, rw, anon, fd, 0)
			a.Map(t, 0, 1, rw, shared, fd, 0)
			assert.Equal(t, []string{"00"}, a.Bytes(kit.Me, 0, 1))
		})
	}
}

// The offset means nothing to an anonymous mapping, and maps does not show it.
func TestAnonymousIgnoresOffset(t *testing.T) {
	for name, flags := range map[string]int{"private": anon, "shared": shared} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, rw, flags, -1, 5)
			lines := a.Maps(t, kit.Me)
			require.Len(t, lines, 1)
			kit.Say(t, "offset %d", lines[0].Offset)
			assert.Zero(t, lines[0].Offset)
			assert.Equal(t, []string{"00"}, a.Bytes(kit.Me, 0, 1))
		})
	}
}

// A length is rounded up to pages.
func TestLengthIsRoundedUp(t *testing.T) {
	for name, c := range map[string]struct {
		length uintptr
		pages  int
	}{
		"1":              {1, 1},
		"page":           {kit.Len(1), 1},
		"page and 1":     {kit.Len(1) + 1, 2},
		"two pages less": {kit.Len(2) - 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			r := kit.Me.Mmap(a.Base, c.length, rw, anon|fixed, -1, 0)
			require.True(t, r.OK())
			kit.Say(t, "%v", a.Layout(t, kit.Me))
			lines := a.Maps(t, kit.Me)
			require.Len(t, lines, 1)
			assert.Equal(t, a.Page(c.pages), lines[0].End)
		})
	}
}

// Low addresses are for privileged processes only (vm.mmap_min_addr).
func TestLowestAddressesNeedPrivilege(t *testing.T) {
	child := unprivileged(t)
	r := child.Mmap(0, kit.Len(1), rw, anon|fixed, -1, 0)
	kit.Say(t, "%s", kit.ErrnoName(r.Errno))
	assert.Equal(t, unix.EPERM, r.Errno)
}

// A buffer of a system call may be any mapped memory, one that is not gives EFAULT.
func TestSystemCallsSeeTheMapping(t *testing.T) {
	a := kit.NewArena(t, 3)
	a.Anon(t, 0, 1, rw, 0)
	a.Anon(t, 1, 1, ro, 0)
	r, w := kit.Pipe(t)
	b := [1]byte{9}
	for page, want := range []unix.Errno{0, unix.EFAULT, unix.EFAULT} {
		_, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(w), uintptr(unsafe.Pointer(&b)), 1)
		require.Zero(t, e)
		got := kit.Me.Read(r, a.Page(page), 1)
		kit.Say(t, "read into page %d: %v", page, got)
		assert.Equal(t, want, got.Errno)
	}
	for page, want := range []unix.Errno{0, 0, unix.EFAULT} {
		got := kit.Me.Write(w, a.Page(page), 1)
		kit.Say(t, "write from page %d: %v", page, got)
		assert.Equal(t, want, got.Errno)
	}
}
