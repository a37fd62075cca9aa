// Claims that after mprotect every access is judged by the new protection, from each to each other.
package mprotect

import (
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// A protection and what it allows. Of memory for execution only it depends on the machine whether it can be read.
var protections = []struct {
	name             string
	prot             int
	perms            string
	load, store, run bool
}{
	{"none", none, "---", false, false, false},
	{"read", ro, "r--", true, false, false},
	{"write", unix.PROT_WRITE, "-w-", true, true, false},
	{"read write", rw, "rw-", true, true, false},
	{"read exec", rx, "r-x", true, false, true},
	{"all", rw | rx, "rwx", true, true, true},
}

// outcome is what the accesses to page 0 do: "ok", or the signal.
func outcome(a *kit.Arena, actor *kit.Actor) [3]string {
	show := func(x kit.Access) string {
		if x.Faulted() {
			return a.Describe(x)
		}
		return "ok"
	}
	run := show(actor.Exec(a.Base))
	load := actor.Load(a.Base)
	return [3]string{show(load), show(actor.Store(a.Base, kit.ReturnCode[0])), run}
}

func expected(load, store, run bool) [3]string {
	var want [3]string
	for i, allowed := range []bool{load, store, run} {
		want[i] = denied + " at p0"
		if allowed {
			want[i] = "ok"
		}
	}
	return want
}

func TestEveryProtectionToEveryOther(t *testing.T) {
	code := func(t *testing.T) int {
		fd := kit.Memfd(t, 1, 0)
		_, err := unix.Pwrite(fd, kit.ReturnCode, 0)
		require.NoError(t, err)
		return fd
	}
	for kind, flags := range map[string]int{"anon": anon, "shared": shared, "private file": unix.MAP_PRIVATE, "shared file": unix.MAP_SHARED} {
		for _, from := range protections {
			for _, to := range protections {
				t.Run(kind+" "+from.name+" to "+to.name, func(t *testing.T) {
					a := kit.NewArena(t, 1)
					fd := -1
					if flags&unix.MAP_ANONYMOUS == 0 {
						fd = code(t)
					}
					a.Map(t, 0, 1, rw, flags, fd, 0)
					if fd < 0 {
						copy(a.Memory(0, 1), kit.ReturnCode)
					}
					protect(t, a, 0, 1, from.prot)
					assert.Equal(t, expected(from.load, from.store, from.run), outcome(a, kit.Me))
					protect(t, a, 0, 1, to.prot)
					perms := a.Maps(t, kit.Me)[0].Perms[:3]
					got := outcome(a, kit.Me)
					kit.Say(t, "%s %v", perms, got)
					assert.Equal(t, to.perms, perms)
					assert.Equal(t, expected(to.load, to.store, to.run), got)
				})
			}
		}
	}
}

// Contents live through having no access.
func TestContentsSurvive(t *testing.T) {
	for kind, flags := range map[string]int{"private": anon, "shared": shared} {
		t.Run(kind, func(t *testing.T) {
			a := kit.NewArena(t, 4)
			a.Map(t, 0, 4, rw, flags, -1, 0)
			a.Fill(t, 0, 4, 1)
			protect(t, a, 0, 4, none)
			assert.Equal(t, []string{denied, denied, denied, denied}, a.Bytes(kit.Me, 0, 4))
			protect(t, a, 0, 4, ro)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 4))
			assert.Equal(t, []string{"01", "02", "03", "04"}, a.Bytes(kit.Me, 0, 4))
		})
	}
}

// Memory that was reserved without access is usable once it gets a protection.
func TestReservationIsUsableAfterwards(t *testing.T) {
	for name, flags := range map[string]int{"private": anon, "noreserve": anon | unix.MAP_NORESERVE, "populated": anon | unix.MAP_POPULATE, "shared": shared} {
		t.Run(name, func(t *testing.T) {
			a := kit.NewArena(t, 8)
			a.Map(t, 0, 8, none, flags, -1, 0)
			protect(t, a, 2, 3, rw)
			a.Fill(t, 2, 3, 1)
			kit.Say(t, "%v", a.Bytes(kit.Me, 0, 8))
			assert.Equal(t, []string{denied, denied, "01", "02", "03", denied, denied, denied}, a.Bytes(kit.Me, 0, 8))
		})
	}
}

// When the call returns, no thread has the old protection.
func TestEveryThreadSeesTheNewProtection(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, rw, 0)
	one, two := kit.NewThread(t), kit.NewThread(t)
	for range 20 {
		for _, thread := range []*kit.Actor{one, two} {
			require.False(t, thread.Store(a.Page(0), 1).Faulted())
			require.False(t, thread.Store(a.Page(1), 1).Faulted())
		}
		require.Zero(t, one.Mprotect(a.Base, kit.Len(2), ro))
		for _, thread := range []*kit.Actor{one, two} {
			require.Equal(t, denied+" at p0", a.Describe(thread.Store(a.Page(0), 2)))
			require.Equal(t, denied+" at p1", a.Describe(thread.Store(a.Page(1), 2)))
		}
		require.Zero(t, two.Mprotect(a.Base, kit.Len(2), rw))
	}
	assert.Equal(t, []string{"01", "01"}, a.Bytes(kit.Me, 0, 2))
}

// Each process has its own.
func TestOtherProcessesKeepTheirProtection(t *testing.T) {
	for kind, flags := range map[string]int{"private": anon, "shared": shared} {
		t.Run(kind, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Map(t, 0, 1, rw, flags, -1, 0)
			child := kit.Fork(t)
			protect(t, a, 0, 1, none)
			assert.False(t, child.Store(a.Base, 1).Faulted())
			require.Zero(t, child.Mprotect(a.Base, kit.Len(1), ro))
			assert.True(t, child.Store(a.Base, 2).Faulted())
			grandchild := child.Fork(t)
			kit.Say(t, "%v %v %v", a.Layout(t, kit.Me), a.Layout(t, child), a.Layout(t, grandchild))
			assert.True(t, grandchild.Store(a.Base, 2).Faulted(), "it is inherited")
		})
	}
}

// The kernel's own accesses are judged as the thread's, with EFAULT for an answer.
func TestSystemCallsObey(t *testing.T) {
	for _, p := range protections {
		t.Run(p.name, func(t *testing.T) {
			a := kit.NewArena(t, 1)
			a.Anon(t, 0, 1, rw, 0)
			a.Fill(t, 0, 1, 1)
			protect(t, a, 0, 1, p.prot)
			r, w := kit.Pipe(t)
			b := [1]byte{9}
			_, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(w), uintptr(unsafe.Pointer(&b)), 1)
			require.Zero(t, e)
			in := kit.Me.Read(r, a.Base, 1)
			out := kit.Me.Write(w, a.Base, 1)
			kit.Say(t, "read %v, write %v", in, out)
			assert.Equal(t, p.store, in.OK())
			assert.Equal(t, p.load, out.OK())
		})
	}
}

// A call that crosses into memory that it may not access stops there.
func TestSystemCallAcrossAProtection(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, rw, 0)
	protect(t, a, 1, 1, none)
	fd := kit.Memfd(t, 0, 0)
	got := kit.Me.Write(fd, a.Page(1)-10, 20)
	kit.Say(t, "%v", got)
	assert.Equal(t, kit.Result{Value: 10}, got)
}

// A page that was only ever read, and shows the page of zeros, can be written once that is allowed.
func TestFirstStoreAfterProtectionIsLifted(t *testing.T) {
	a := kit.NewArena(t, 2)
	a.Anon(t, 0, 2, ro, 0)
	assert.Equal(t, []string{"00", "00"}, a.Bytes(kit.Me, 0, 2))
	protect(t, a, 0, 2, rw)
	a.Fill(t, 1, 1, 7)
	assert.Equal(t, []string{"00", "07"}, a.Bytes(kit.Me, 0, 2))
	require.False(t, kit.Me.Load(a.Page(0)).Faulted())
}
