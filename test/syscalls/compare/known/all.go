package known

import (
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// All are the differences.
var All = []Difference{
	{
		Name:   "what hurts the engine",
		Reason: "madvise goes on behind holes, up to the engine's own stack; code that cannot be read cannot be checked before it is called",
		Leads: func(s program.Step) bool {
			prot, _ := s.Arg(program.KindProt)
			length, _ := s.Arg(program.KindLen)
			return s.Op == program.Madvise && (length < 0 || length > program.ArenaPages*program.PageSize) || prot&7 == unix.PROT_EXEC
		},
	},
	{
		Name:   "code of SIGBUS",
		Reason: "kernel/task_run.go turns SIGSEGV into SIGBUS and leaves the code what it was",
		Result: func(_ program.Step, result string) string { return busCode.ReplaceAllString(result, "SIGBUS") },
		Line:   func(_, line string) string { return busCode.ReplaceAllString(line, "SIGBUS") },
	},
	{
		Name:     "stores where nothing can be written or read",
		Reason:   "platform/ptrace takes every fault for a read at first, which finds the end of the file before the mapping refuses a write",
		Platform: "ptrace",
		Result: func(s program.Step, result string) string {
			if s.Op == program.Store || s.Op == program.Store64 || s.Op == program.Fill {
				return noStore.ReplaceAllString(result, "no store")
			}
			return result
		},
	},
	{
		Name:   "advice that is ignored",
		Reason: "syscalls/linux/sys_mmap.go accepts some advice without looking at the range, and refuses other with ENOSYS or EINVAL",
		Leads: func(s program.Step) bool {
			advice, ok := s.Arg(program.KindAdvice)
			return ok && advice != unix.MADV_DONTNEED && advice != unix.MADV_DONTFORK && advice != unix.MADV_DOFORK
		},
	},
	{
		Name:   "MAP_SHARED_VALIDATE",
		Reason: "syscalls/linux/sys_mmap.go knows MAP_SHARED and MAP_PRIVATE, not both bits",
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindMap)
			return flags&unix.MAP_SHARED_VALIDATE == unix.MAP_SHARED_VALIDATE
		},
	},
	{
		Name:   "MREMAP_DONTUNMAP",
		Reason: "syscalls/linux/sys_mmap.go refuses it",
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindRemap)
			return flags&unix.MREMAP_DONTUNMAP != 0
		},
	},
	{
		Name:   "mmap of files that cannot be mapped",
		Reason: "syscalls/linux/sys_mmap.go leaves permissions of descriptors without mmap to ENODEV",
		Leads: func(s program.Step) bool {
			h, _ := s.Arg(program.KindHandle)
			return s.Op == program.Mmap && program.Handle(h) >= program.PipeRead
		},
	},
	{
		Name:   "fallocate",
		Reason: "fsimpl/tmpfs and fsimpl/gofer have no mode but 0",
		Leads: func(s program.Step) bool {
			mode, _ := s.Arg(program.KindHole)
			return s.Op == program.Fallocate && mode != 0
		},
	},
	{
		Name:   "names of SysV segments",
		Reason: "kernel/shm does not call a segment deleted, which Linux does with all",
		Line: func(_, line string) string {
			return strings.Replace(line, "SYSV00000000 (deleted)", "SYSV00000000", 1)
		},
	},
	{
		Name:   "reading nothing into no memory",
		Reason: "the sentry looks for the buffer before it asks the file; Linux finds the end of the file first",
		Result: func(s program.Step, result string) string {
			if result == "event EFAULT" {
				return "event 0"
			}
			if result == "EFAULT" && (s.Op == program.Pread || s.Op == program.Read || s.Op == program.Readv) {
				return "0"
			}
			return result
		},
	},
	{
		Name:   "reading nothing into memory that grows",
		Reason: "as above: what grows down has grown before the file says that it ends",
		Side: func(s program.Step) (string, int) {
			flags, _ := s.Arg(program.KindMap)
			switch {
			case flags&unix.MAP_GROWSDOWN != 0:
				return "", 1
			case s.Op == program.AIOSubmit && s.Args[1] == 0:
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "writing from no memory to what must not be written",
		Reason: "the sentry looks for the buffer before it asks the file; Linux looks at seals first",
		Result: func(s program.Step, result string) string {
			if result == "EFAULT" && s.Op == program.Pwrite {
				return "EPERM"
			}
			return result
		},
	},
	{
		Name:   "flags in smaps",
		Reason: "the sentry shows those flags that mean something to it",
		Line: func(aspect, line string) string {
			if before, flags, ok := strings.Cut(line, " VmFlags:"); aspect == trace.Smaps && ok {
				var shown []string
				for flag := range strings.SplitSeq(flags, ",") {
					// A sealed memfd cannot be written to, that is all that fsimpl/tmpfs says of it.
					if slices.Contains(comparedFlags, flag) && (flag != "sh" || strings.Contains(flags, "mw")) {
						shown = append(shown, flag)
					}
				}
				return before + " VmFlags:" + strings.Join(shown, ",")
			}
			return line
		},
	},
	{
		Name:   "mmap of nothing known",
		Reason: "syscalls/linux/sys_mmap.go looks at flags before the file",
		Leads: func(s program.Step) bool {
			flags, ok := s.Arg(program.KindMap)
			return ok && flags&3 == 0
		},
	},
	{
		Name:   "F_SEAL_FUTURE_WRITE",
		Reason: "syscalls/linux/sys_mmap.go looks for F_SEAL_WRITE only",
		Leads: func(s program.Step) bool {
			seals, _ := s.Arg(program.KindSeal)
			return seals&unix.F_SEAL_FUTURE_WRITE != 0
		},
	},
	{
		Name:   "process_vm_readv of nothing",
		Reason: "kernel/task_usermem.go looks at all of the vectors, Linux at none if there is nothing to copy",
		Leads: func(s program.Step) bool {
			return (s.Op == program.VMRead || s.Op == program.VMWrite) && (s.Args[2] == 0 || s.Args[4] == 0)
		},
	},
	{
		Name:   "where shmat attaches",
		Reason: "kernel/shm, ConfigureAttach, takes the address as a hint and does not round it; with SHM_REMAP it does not ask for one",
		Leads: func(s program.Step) bool {
			return s.Op == program.Shmat && ((s.Args[1] == 0) == (s.Args[2]&shmRemap != 0) || s.Args[1]%program.PageSize != 0)
		},
	},
	{
		Name:   "segments attached next to others",
		Reason: "what the kernel put behind a mapping that it placed itself is chance",
		Leads: func(s program.Step) bool {
			return s.Op == program.Shmat && program.Address(s.Args[1]).IsSlot()
		},
	},
	{
		Name:   "lengths beyond 2^63",
		Reason: "vfs, GenericConfigureMMap, refuses them before the memory manager sees them",
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindMap)
			return s.Op == program.Mmap && s.Args[1] < 0 && flags&(3|unix.MAP_ANONYMOUS) != unix.MAP_PRIVATE|unix.MAP_ANONYMOUS
		},
	},
	{
		Name:   "rings that are moved",
		Reason: "what is in a ring of AIO is the kernel's own affair, and the sentry's is empty: so they stay where nobody looks",
		Side: func(s program.Step) (string, int) {
			flags, _ := s.Arg(program.KindRemap)
			switch {
			case s.Op == program.AIOSetup:
				return "", 1
			case flags&unix.MREMAP_FIXED != 0 && program.Address(s.Args[0]).IsSlot():
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "private mappings of files that change",
		Reason: "whether they show it is unspecified: a store copies the pages next to it as well (docs/mm.md), Linux copies one",
		Side:   privateOrChanged,
	},
	{
		Name:   "RLIMIT_MEMLOCK where locked memory is replaced",
		Reason: "Linux does not deduct what is replaced (docs/mm.md); test/syscalls/limits is about that",
		Ends: func(s program.Step, native, other string) bool {
			flags, _ := s.Arg(program.KindMap)
			remap, _ := s.Arg(program.KindRemap)
			attach, _ := s.Arg(program.KindAttach)
			replaces := flags&unix.MAP_FIXED != 0 || remap&unix.MREMAP_FIXED != 0 || attach&shmRemap != 0
			return replaces && native == "EAGAIN" && !strings.HasPrefix(other, "E")
		},
	},
	{
		Name:   "locking all there is, which is much",
		Reason: "how much memory a process has to begin with is not the same, and RLIMIT_MEMLOCK not raised without a privilege",
		Side: func(s program.Step) (string, int) {
			const much = 64 * program.PageSize
			flags, _ := s.Arg(program.KindLockAll)
			switch {
			case flags&unix.MCL_CURRENT != 0:
				return "", 1
			case s.Op == program.Mmap && s.Args[1] > much, s.Op == program.Mremap && s.Args[2] > much, s.Op == program.Shmget && s.Args[1] > much:
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "attachments where mmap fails",
		Reason: "Linux leaves split what it could not replace, and counts the parts; the memory manager leaves all as it was",
		Side: func(s program.Step) (string, int) {
			switch s.Op {
			case program.Limit:
				return "", 1
			case program.Shmstat:
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "attachments where threads wait",
		Reason: "kernel/shm takes the reference that a futex holds for one more attachment",
		Side: func(s program.Step) (string, int) {
			switch {
			case s.Op == program.Shmstat:
				return "", 1
			case s.Op == program.Park && s.Args[2] == 0, s.Op == program.Requeue && s.Args[4] == 0:
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "a sealed memfd where nothing can be mapped",
		Reason: "fsimpl/tmpfs, ConfigureMMap, refuses it before the memory manager looks at place and length",
		Side: func(s program.Step) (string, int) {
			flags, _ := s.Arg(program.KindMap)
			h, _ := s.Arg(program.KindHandle)
			switch {
			case program.Handle(h) != program.Memfd:
			case s.Op == program.Seal:
				return "", 1
			case s.Op == program.Mmap:
				odd := s.Args[0]%program.PageSize != 0 && flags&unix.MAP_FIXED != 0
				if flags&(unix.MAP_FIXED_NOREPLACE|unix.MAP_GROWSDOWN) != 0 || odd || s.Args[1] <= 0 || s.Args[5]%program.PageSize != 0 {
					return "", 2
				}
			}
			return "", 0
		},
	},
	{
		Name:   "limits where mremap replaces and grows",
		Reason: "Linux 6.18 does not deduct what is replaced (docs/mm.md); test/syscalls/limits is about that",
		Side: func(s program.Step) (string, int) {
			flags, _ := s.Arg(program.KindRemap)
			switch {
			case s.Op == program.Limit:
				return "", 1
			case flags&unix.MREMAP_FIXED != 0 && (s.Args[2] > s.Args[1] || program.Address(s.Args[0]).IsSlot()): // a slot may be smaller
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "mremap that fails late",
		Reason: "Linux has unmapped the destination when it finds that the source wraps around, or is what it unmapped; nobody wants that (docs/mm.md)",
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindRemap)
			if flags&unix.MREMAP_FIXED == 0 {
				return false
			}
			// A second mapping, which takes the place of the first one.
			over := s.Args[1] == 0 && s.Args[0] >= s.Args[4] && s.Args[0] < s.Args[4]+s.Args[2]
			return over || s.Args[1] < 0 || s.Args[1] > program.ArenaPages*program.PageSize
		},
	},
	{
		Name:   "neighbours that growing joined",
		Reason: "Linux leaves two in maps where one has grown to the other (docs/mm.md), and PROT_GROWSDOWN changes one",
		Side: func(s program.Step) (string, int) {
			prot, _ := s.Arg(program.KindProt)
			flags, _ := s.Arg(program.KindMap)
			switch {
			case prot&unix.PROT_GROWSDOWN != 0: // of what does not; test/syscalls/mprotect is about the rest
				return "", 1
			case flags&unix.MAP_GROWSDOWN != 0:
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "neighbours that a fork joined",
		Reason: "Linux leaves two in the child of what locks kept apart in the parent (docs/mm.md), and mremap takes one",
		Ends: func(s program.Step, native, other string) bool {
			return s.Op == program.Mremap && s.Actor.IsChild() && native == "EFAULT" && !strings.HasPrefix(other, "E")
		},
	},
	{
		Name:   "hints for large mappings of files",
		Reason: "ext4 looks for room for one huge page more, at the hint too, and goes elsewhere if there is not; which file systems do is theirs to say",
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindMap)
			h, _ := s.Arg(program.KindHandle)
			onDisk := program.Handle(h) == program.Disk || program.Handle(h) == program.DiskRead
			return s.Op == program.Mmap && onDisk && flags&(unix.MAP_ANONYMOUS|unix.MAP_FIXED) == 0 && s.Args[1] >= 512*program.PageSize
		},
	},
	{
		Name:   "MAP_NONBLOCK",
		Reason: "syscalls/linux/sys_mmap.go does not pass it on, so what is to be populated is",
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindMap)
			return flags&unix.MAP_NONBLOCK != 0 && flags&unix.MAP_POPULATE != 0
		},
	},
	{
		Name:   "memory that can be written to and not read",
		Reason: "process_vm_readv does not read it, copy_from_user does; usermem.IO does not tell which of the two it is",
		Side: func(s program.Step) (string, int) {
			prot, ok := s.Arg(program.KindProt)
			switch {
			case s.Op == program.VMRead || s.Op == program.VMWrite:
				return "", 1
			case ok && prot&(unix.PROT_READ|unix.PROT_WRITE) == unix.PROT_WRITE:
				return "", 2
			}
			return "", 0
		},
	},
	{
		Name:   "code that is not there",
		Reason: "x86 lets Linux look for the page of an instruction before it sees that code is not allowed there; a platform's fault says what was wanted",
		Result: func(s program.Step, result string) string {
			if fault, where, ok := strings.Cut(result, " at "); ok && s.Op == program.Exec && strings.HasPrefix(fault, "SIG") {
				return "fault at " + where
			}
			return result
		},
	},
	{
		Name:   "io_submit to a file opened otherwise",
		Reason: "syscalls/linux/sys_aio.go finds out when it does the request",
		Result: func(s program.Step, result string) string {
			if s.Op == program.AIOSubmit && result == "event EBADF" {
				return "EBADF"
			}
			return result
		},
	},
	{
		Name:   "fallocate of nothing",
		Reason: "syscalls/linux/sys_file.go looks at the file before the length",
		Leads:  func(s program.Step) bool { return s.Op == program.Fallocate && s.Args[3] == 0 },
	},
	{
		Name:   "private mappings of /dev/zero",
		Reason: "memdev/zero.go makes their offsets 0, aligned or not, so that neighbours are joined which Linux keeps apart",
		Leads: func(s program.Step) bool {
			h, ok := s.Arg(program.KindHandle)
			flags, _ := s.Arg(program.KindMap)
			return ok && program.Handle(h) == program.Zero && (flags&unix.MAP_PRIVATE != 0 || s.Op == program.Mmap && s.Args[5]%program.PageSize != 0)
		},
	},
}

const shmRemap = 0o40000

// comparedFlags are those of VmFlags that have to agree.
var comparedFlags = []string{"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "lf", "dc"}

// privateOrChanged is 1 for steps that map a file private and 2 for those that change what is in it, or can
// with a store. Whole pages come and go with truncation, and that both see.
func privateOrChanged(s program.Step) (file string, side int) {
	v, ok := s.Arg(program.KindHandle)
	h := program.Handle(v)
	if h == program.DiskRead {
		h = program.Disk
	}
	if !ok || h != program.Disk && h != program.Tmpfs && h != program.Memfd && h != program.Sealed {
		return "", 0
	}
	file = program.KindHandle.Text(int64(h))
	switch flags, _ := s.Arg(program.KindMap); s.Op {
	case program.Mmap:
		if flags&unix.MAP_ANONYMOUS != 0 {
			return "", 0
		}
		return file, map[bool]int{true: 1, false: 2}[flags&unix.MAP_PRIVATE != 0]
	case program.Pwrite:
		return file, 2
	case program.AIOSubmit:
		if s.Args[1] != 0 {
			return file, 2
		}
	case program.Ftruncate:
		if s.Args[1]%program.PageSize != 0 {
			return file, 2
		}
	}
	return "", 0
}

var (
	noStore = regexp.MustCompile(`SIGSEGV/ACCERR|SIGBUS`)
	busCode = regexp.MustCompile(`SIGBUS/\w+`)
)
