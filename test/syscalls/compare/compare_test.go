package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"sentrymm/test/syscalls/compare/known"
	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// A fake is a target whose steps succeed, but for what it lies about.
type fake struct {
	lie  func(step program.Step) bool
	stop int // steps after which it ends, if not 0
	runs int
}

func (f *fake) run(_ context.Context, p *program.Program) ([]trace.Step, error) {
	f.runs++
	steps := []trace.Step{{Result: "begin", Views: []trace.View{{Process: "main", Aspect: trace.Maps, Lines: []string{"p0-p1 rw-p 0"}}}}}
	for i, s := range p.Steps {
		if f.stop != 0 && i == f.stop {
			break
		}
		step := trace.Step{Result: "0"}
		if f.lie != nil && f.lie(s) {
			step.Result = "EINVAL"
		}
		steps = append(steps, step)
	}
	return steps, nil
}

func (*fake) close() error { return nil }

func TestLiarIsCaughtAndShrunk(t *testing.T) {
	other := &fake{lie: func(s program.Step) bool { return s.Op == program.Mprotect && s.Args[2]&1 != 0 }}
	p := &pair{native: &fake{}, other: other}
	caught := 0
	for seed := range uint64(20) {
		prog := program.Generate(seed, 100, known.Filter(seed))
		d, err := p.run(t.Context(), prog)
		require.NoError(t, err)
		if d == nil {
			continue
		}
		caught++
		require.True(t, other.lie(prog.Steps[d.step-1]), "the first one is reported")
		small, err := p.shrink(t.Context(), d)
		require.NoError(t, err)
		require.Len(t, small.program.Steps, 1)
		require.Equal(t, program.Mprotect, small.program.Steps[0].Op)
		require.Equal(t, []string{"0"}, small.wanted)
		require.Equal(t, []string{"EINVAL"}, small.got)
		require.Contains(t, goTest(small), "r := kit.Me.Call(unix.SYS_MPROTECT, ")
		require.Contains(t, goTest(small), "assert.True(t, r.OK())")
	}
	require.Greater(t, caught, 5)
}

func TestTargetThatEndsDiffers(t *testing.T) {
	p := &pair{native: &fake{}, other: &fake{stop: 7}}
	d, err := p.run(t.Context(), program.Generate(1, 20, known.Wanted))
	require.NoError(t, err)
	require.Equal(t, "end", d.aspect)
	require.Equal(t, 7, d.step)
}

func TestEngineThatDoesNotStartIsNoticed(t *testing.T) {
	path, err := exec.LookPath("false")
	require.NoError(t, err)
	_, err = native(path, t.TempDir()).run(t.Context(), program.Generate(1, 5, known.Filter(1)))
	require.Error(t, err)
	require.NotContains(t, err.Error(), "nothing for")
}

func TestShrinkTriesWantedProgramsOnly(t *testing.T) {
	other := &fake{lie: func(s program.Step) bool { return s.Op == program.Mmap }}
	p := &pair{native: &fake{}, other: other}
	for seed := range uint64(20) {
		d, err := p.run(t.Context(), program.Generate(seed, 50, known.Filter(seed)))
		require.NoError(t, err)
		if d == nil {
			continue
		}
		small, err := p.shrink(t.Context(), d)
		require.NoError(t, err)
		require.True(t, known.Wanted(small.program.Steps[0]), small.program.String())
	}
}

func TestMappingsThatLinuxDoesNotJoinAgree(t *testing.T) {
	for name, c := range map[string]struct {
		native, other []string
		agree         bool
	}{
		"the same":          {[]string{"p0-p4 rw-p 0"}, []string{"p0-p4 rw-p 0"}, true},
		"joined there":      {[]string{"p0-p1 rw-p 0", "p1-p4 rw-p 0"}, []string{"p0-p4 rw-p 0"}, true},
		"joined here":       {[]string{"p0-p4 rw-p 0"}, []string{"p0-p1 rw-p 0", "p1-p4 rw-p 0"}, false},
		"a gap":             {[]string{"p0-p1 rw-p 0", "p2-p4 rw-p 0"}, []string{"p0-p4 rw-p 0"}, false},
		"other rights":      {[]string{"p0-p1 r--p 0", "p1-p4 rw-p 0"}, []string{"p0-p4 rw-p 0"}, false},
		"a file":            {[]string{"p0-p1 rw-p 3 memfd:kit", "p1-p4 rw-p 4 memfd:kit"}, []string{"p0-p4 rw-p 3 memfd:kit"}, true},
		"a file, elsewhere": {[]string{"p0-p1 rw-p 3 memfd:kit", "p1-p4 rw-p 5 memfd:kit"}, []string{"p0-p4 rw-p 3 memfd:kit"}, false},
		"beyond the heap":   {[]string{"b-b+0x1000 rw-p 0 [heap]", "b+0x1000-b+0x3000 rw-p 0"}, []string{"b-b+0x3000 rw-p 0 [heap]"}, true},
		"the heap":          {[]string{"b-b+0x1000 rw-p 0 [heap]", "b+0x1000-b+0x3000 rw-p 0 [heap]"}, []string{"b-b+0x3000 rw-p 0 [heap]"}, true},
		"heap, not joined":  {[]string{"b-b+0x1000 rw-p 0 [heap]", "b+0x1000-b+0x3000 rw-p 0"}, []string{"b-b+0x3000 rw-p 0"}, false},
		"flags":             {[]string{"p0-p1 VmFlags:rd", "p1-p4 VmFlags:rd"}, []string{"p0-p4 VmFlags:rd"}, true},
		"one less":          {[]string{"p0-p1 rw-p 0"}, nil, false},
	} {
		require.Equal(t, c.agree, agree(trace.Maps, c.native, c.other), name)
	}
	require.False(t, agree(trace.Pages, []string{"p0-p1 00", "p1-p4 00"}, []string{"p0-p4 00"}), "pages are not mappings")
}

func TestMappingsThatLinuxDoesNotJoinMayStay(t *testing.T) {
	step := func(text string) program.Step {
		s, err := program.ParseStep(text)
		require.NoError(t, err)
		return s
	}
	native, other := []string{"p0-p1 rw-p 0", "p1-p2 rw-p 0"}, []string{"p0-p2 rw-p 0"}
	require.True(t, apart(step("main mremap p0 2p 3p 0 0x0 m0"), native, other, "EFAULT"))
	require.False(t, apart(step("main mremap p0 2p 3p 0 0x0 m0"), native, other, "ENOMEM"))
	require.False(t, apart(step("main mremap p0 2p 3p 0 0x0 m0"), native, native, "EFAULT"), "they are two in both places")
	require.False(t, apart(step("main mremap p1 1p 3p 0 0x0 m0"), native, other, "EFAULT"), "it is in one of them")
	require.False(t, apart(step("main munmap p0 2p"), native, other, "EFAULT"))
}

// Every operation is printed as Go that compiles.
func TestPrintedTestsAreGo(t *testing.T) {
	code := "package pasted\n\nimport (\n\"fmt\"\n\"testing\"\n\n\"github.com/stretchr/testify/assert\"\n\"golang.org/x/sys/unix\"\n\n\"sentrymm/test/syscalls/kit\"\n)\n\n" +
		"var _, _, _ = fmt.Sscan, assert.Equal, unix.Mmap\n\n"
	seen := map[*program.Op]bool{}
	for seed := range uint64(40) {
		p := program.Generate(seed, 60, known.Filter(seed))
		p.Seed = seed
		for _, s := range p.Steps {
			seen[s.Op] = true
		}
		last, wanted := len(p.Steps), "EINVAL"
		if p.Steps[last-1].Op.Access() {
			wanted = "0x5"
		}
		for _, d := range []*difference{
			{program: p, step: last, aspect: "result", wanted: []string{wanted}},
			{program: p, step: last, aspect: trace.Maps, process: "main", wanted: []string{"p0-p1 rw-p 0"}},
			{program: p, step: last, aspect: trace.Pages, process: "main", wanted: []string{"p0-p1 00"}},
		} {
			p.Seed += 1000
			code += goTest(d) + "\n"
		}
	}
	for _, o := range program.Ops {
		require.True(t, seen[o], o.Name)
	}
	dir, err := os.MkdirTemp("testdata", "pasted-")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "pasted_test.go"), []byte(code), 0o644))
	out, err := exec.Command("go", "vet", "./"+dir).CombinedOutput()
	require.NoError(t, err, string(out))
}

// What was found before, and some programs more: two runs on one machine agree.
func TestMachineAgreesWithItself(t *testing.T) {
	corpus, err := filepath.Glob("testdata/*.txt")
	require.NoError(t, err)
	require.NotEmpty(t, corpus)
	readEngine(t)
	for name, args := range map[string][]string{
		"replayed":  append([]string{"-platform=native", "-replay"}, corpus...),
		"generated": {"-platform=native", "-seed=1", "-programs=6"},
	} {
		t.Run(name, func(t *testing.T) {
			o, err := parse(args)
			require.NoError(t, err)
			differences, err := run(t.Context(), o)
			require.NoError(t, err)
			require.Zero(t, differences)
		})
	}
}

func TestProgramIsToldWithItsResults(t *testing.T) {
	p, err := program.Parse("seed 5\nmain munmap p0 1p\nmain load p0\n")
	require.NoError(t, err)
	reference := []trace.Step{{Result: "begin"}, {Result: "0"}}
	require.Equal(t, "program 5\n   1 main munmap p0 1p: 0\n   2 main load p0\n", narrate(p, reference), "it ended after the first")
}

// readEngine reads what the engine is built of, so that `go test` knows what its cached result depends on.
func readEngine(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("engine/*")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, name := range files {
		_, err := os.ReadFile(name)
		require.NoError(t, err)
	}
}

func TestFlagsThatMakeNoSense(t *testing.T) {
	for _, args := range [][]string{{"-replay"}, {"file"}, {"-programs=-1"}, {"-steps=0"}, {"-j=0"}, {"-differences=0"}} {
		_, err := parse(args)
		require.Error(t, err, fmt.Sprint(args))
	}
	o, err := parse(nil)
	require.NoError(t, err)
	require.Equal(t, 100, o.programs)
	require.NotZero(t, o.seed)
}
