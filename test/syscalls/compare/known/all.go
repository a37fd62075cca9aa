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
		Name:   "lines of AIO rings",
		Reason: "Linux lets programs write to rings, and shows the file as deleted",
		Line: func(aspect, line string) string {
			if aspect == trace.Maps && strings.Contains(line, "[aio]") {
				return strings.Fields(line)[0] + " [aio]"
			}
			return line
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
					if slices.Contains(comparedFlags, flag) {
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
		Name:    "shmat of nothing for something",
		Reason:  "Linux refuses SHM_REMAP without an address with EINVAL",
		Passing: true,
		Leads:   func(s program.Step) bool { return s.Op == program.Shmat && s.Args[1] == 0 && s.Args[2]&0o40000 != 0 },
	},
	{
		Name:    "shrinking a heap that is not there",
		Reason:  "Linux leaves the break where it is if nothing is mapped in what it would unmap",
		Passing: true,
		Leads: func(s program.Step) bool {
			heap := false
			for i, kind := range s.Op.Args {
				heap = heap || kind == program.KindAddr && program.Address(s.Args[i]).Region() == program.Heap
			}
			return heap && (s.Op == program.Munmap || s.Op == program.Mremap || s.Op == program.Shmdt)
		},
	},
	{
		Name:   "fallocate of nothing",
		Reason: "syscalls/linux/sys_file.go looks at the file before the length",
		Leads:  func(s program.Step) bool { return s.Op == program.Fallocate && s.Args[3] == 0 },
	},
	{
		Name:    "MAP_GROWSDOWN",
		Reason:  "the mapping does not grow",
		Passing: true,
		Leads: func(s program.Step) bool {
			flags, _ := s.Arg(program.KindMap)
			return flags&unix.MAP_GROWSDOWN != 0
		},
	},
	{
		Name:    "names of the heap",
		Reason:  "Linux calls whatever is where the heap is [heap], the sentry what brk mapped",
		Passing: true,
		Line:    func(_, line string) string { return strings.TrimSuffix(line, " [heap]") },
	},
	{
		Name:    "moves of several mappings",
		Reason:  "Linux 6.17 moves them at once",
		Passing: true,
		Leads: func(s program.Step) bool {
			return s.Op == program.Mremap && s.Args[3]&unix.MREMAP_FIXED != 0 && s.Args[1] == s.Args[2] && s.Args[1] > program.PageSize
		},
	},
	{
		Name:    "offsets of private mappings of /dev/zero",
		Reason:  "shown as 0",
		Passing: true,
		Line: func(aspect, line string) string {
			if f := strings.Fields(line); aspect == trace.Maps && len(f) == 4 && f[3] == "zero" {
				f[2] = "0"
				return strings.Join(f, " ")
			}
			return line
		},
	},
}

// comparedFlags are those of VmFlags that have to agree.
var comparedFlags = []string{"rd", "wr", "ex", "sh", "mr", "mw", "me", "ms", "gd", "lo", "lf", "dc"}

var busCode = regexp.MustCompile(`SIGBUS/\w+`)
