// Package fake is a suite that behaves differently in the tests' fake sandbox, in every way that the
// runner has to tell apart.
package fake

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

var inside = os.Getenv("INSIDE") != ""

func TestMain(m *testing.M) {
	status := m.Run()
	if inside && os.Getenv("SEED") == "exit" {
		status = 7
	}
	os.Exit(status)
}

func say(t *testing.T, format string, args ...any) {
	fmt.Fprintf(t.Output(), "| "+format+"\n", args...)
}

// crash ends the program at once.
func crash() { syscall.Kill(syscall.Getpid(), syscall.SIGKILL) }

func TestSame(t *testing.T) {
	say(t, "one\n| two")
	t.Run("below", func(t *testing.T) { say(t, "three") })
	t.Logf("the working folder is %s", os.Getenv("TMPDIR"))
}

func TestDiffers(t *testing.T) {
	for i := range 20 {
		say(t, "line %d", i)
	}
	if inside {
		say(t, "only here")
	}
	for i := range 20 {
		say(t, "line %d after", i)
	}
}

func TestFails(t *testing.T) {
	t.Run("well", func(t *testing.T) {})
	t.Run("badly", func(t *testing.T) {
		if inside {
			t.Error("not as it should be \x01\x7f ]]>")
		}
	})
}

func TestSkipped(t *testing.T) { t.Skip("nowhere") }

func TestSkippedOutside(t *testing.T) {
	if !inside {
		t.Skip("not on this machine")
	}
}

func TestSkippedInside(t *testing.T) {
	t.Run("below", func(t *testing.T) {
		if inside {
			t.Skip("not here")
		}
		t.Run("deep", func(t *testing.T) {})
	})
}

func TestKilled(t *testing.T) {
	t.Run("before", func(t *testing.T) { say(t, "before") })
	t.Run("now/here (1)", func(t *testing.T) {
		if inside {
			crash()
		}
	})
	t.Run("after", func(t *testing.T) { say(t, "after") })
}

func TestPanics(t *testing.T) {
	t.Run("deep", func(t *testing.T) {
		t.Run("down", func(t *testing.T) {
			if inside {
				panic("in the deep")
			}
		})
	})
	t.Run("after", func(t *testing.T) {})
}

func TestManyKilled(t *testing.T) {
	t.Run("family", func(t *testing.T) {
		for i := range 5 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				if inside {
					crash()
				}
			})
		}
	})
	t.Run("other", func(t *testing.T) {})
}

func TestHangs(t *testing.T) {
	t.Run("before", func(t *testing.T) {})
	t.Run("now", func(t *testing.T) {
		if inside {
			select {}
		}
	})
}

func TestHangsToo(t *testing.T) {
	if inside {
		select {}
	}
}

func TestLast(t *testing.T) { say(t, "last") }

func TestFailsNatively(t *testing.T) {
	if os.Getenv("SEED") == "native" {
		t.Error("on the machine itself")
	}
}
