package main

import (
	"fmt"
	"go/format"
	"strings"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

// goTest is a difference as a test of the suites, which claims what was seen natively.
func goTest(d *difference) string {
	var b strings.Builder
	fmt.Fprintf(&b, "// Found by a program of random calls.\nfunc TestSeed%d(t *testing.T) {\n", d.program.Seed)
	b.WriteString(d.program.GoCode())
	b.WriteString(d.claim())
	b.WriteString("}\n")
	code, err := format.Source([]byte(b.String()))
	if err != nil {
		return fmt.Sprintf("// This is not Go: %v\n%s", err, b.String())
	}
	return string(code)
}

// claim is what the test asserts, of the last step or of what a process sees after it.
func (d *difference) claim() string {
	last := len(d.program.Steps) - 1
	who := "kit.Me"
	if d.process != "" && d.process != "main" {
		who = d.process
	}
	switch {
	case d.aspect == "result" && d.step == last+1 && last >= 0:
		return claimOfResult(d.program.Steps[last], d.wanted[0])
	case d.aspect == trace.Maps:
		return d.unused() + fmt.Sprintf("\tassert.Equal(t, %#v, a.Layout(t, %s))\n", d.wanted, who)
	}
	// What pages hold, or flags: the transcripts differ.
	return d.unused() + fmt.Sprintf("\tkit.Say(t, \"%%q\", a.Layout(t, %s))\n\tkit.Say(t, \"%%v\", a.Bytes(%s, 0, 32))\n", who, who) +
		strings.Join(prefixed("\t// natively: ", d.wanted), "")
}

// unused is what Go wants of a result that nobody looks at.
func (d *difference) unused() string {
	if n := len(d.program.Steps); n > 0 && d.program.Steps[n-1].HasOutcome() {
		return "\t_ = r\n"
	}
	return ""
}

func claimOfResult(s program.Step, wanted string) string {
	claim := ""
	switch word, _, _ := strings.Cut(wanted, " "); {
	case !s.HasOutcome():
	case s.Op.Access() && strings.Contains(word, "/"):
		claim = fmt.Sprintf("\tassert.Equal(t, %q, r.SignalName())\n", word)
	case s.Op.Access() && word == "ok":
		claim = "\tassert.False(t, r.Faulted())\n"
	case s.Op.Access():
		claim = fmt.Sprintf("\tassert.Equal(t, kit.Access{Value: %s}, r)\n", word)
	case strings.HasPrefix(word, "E"):
		claim = fmt.Sprintf("\tassert.Equal(t, unix.%s, r.Errno)\n", word)
	default:
		claim = "\tassert.True(t, r.OK())\n\tkit.Say(t, \"%s\", a.Where(r.Value))\n"
	}
	return fmt.Sprintf("\t// natively: %s\n", wanted) + claim
}

func prefixed(prefix string, lines []string) []string {
	var all []string
	for _, line := range lines {
		all = append(all, prefix+line+"\n")
	}
	return all
}
