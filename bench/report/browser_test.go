package report

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"
)

// findBrowser returns a browser of Chromium's family. A test that needs one is
// skipped without, but in CI, which installs one.
func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("OVND_CI") != "" {
		t.Fatal("no browser: CI has to install chromium-headless-shell")
	}
	t.Skip("no browser: `apt install chromium-headless-shell` (100 MB) to run this test")
	return ""
}

// A browser shows one page and keeps what that page complains about or fetches.
type browser struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string
	requests   []string
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(findBrowser(t)),
		chromedp.NoSandbox, // its own sandbox is not possible in many containers, and the page is ours
		chromedp.WindowSize(1000, 800),
	)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	b := new(browser)
	b.ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(b.hear))
	t.Cleanup(cancel)
	call(t, b, network.Enable, network.EnableParams{})
	return b
}

// hear is called before the command that made an event returns.
func (b *browser) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		b.complaints = append(b.complaints, fmt.Sprintf("console.%s", e.Type))
	case *runtime.EventExceptionThrown:
		b.complaints = append(b.complaints, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		b.complaints = append(b.complaints, e.Entry.Text)
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	}
}

func call[P, R any](t *testing.T, b *browser, command cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(b.ctx, command, params); err != nil {
		t.Fatal(err)
	}
}

func run[T any](t *testing.T, b *browser, action chromedp.Action[T]) T {
	t.Helper()
	got, err := chromedp.Run(b.ctx, action)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// heard returns what the page complained about and what it asked for, but for
// itself and for what is written in it.
func (b *browser) heard(page string) (complaints, requests []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, url := range b.requests {
		if url != page && !strings.HasPrefix(url, "data:") {
			requests = append(requests, url)
		}
	}
	return b.complaints, requests
}

// pageFile writes a page where the browser finds it.
func pageFile(t *testing.T, content []byte) (url string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "report.html")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + path
}

// visible has, for each plot, whether it takes room and shows bars, lines or
// dots, and text, inside of its frame.
const visible = `Array.from(document.querySelectorAll("svg[role=img]")).map(svg => {
  const frame = svg.getBoundingClientRect();
  const inside = e => { const r = e.getBoundingClientRect(); return r.left >= frame.left - 1 && r.right <= frame.right + 1; };
  const texts = Array.from(svg.querySelectorAll("text"));
  return frame.width > 300 && frame.height > 100 && svg.querySelectorAll("path").length > 3 &&
    texts.length > 3 && texts.every(inside);
})`

func TestPageInABrowser(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("opened", func(t *testing.T) {
		b := newBrowser(t)
		var content bytes.Buffer
		if err := example().WriteHTML(&content, faster()); err != nil {
			t.Fatal(err)
		}
		page := pageFile(t, content.Bytes())
		run(t, b, chromedp.Navigate(page))
		shown := run(t, b, chromedp.Evaluate[[]bool](visible))
		if want := len(mustFigures(t, example())); len(shown) != want {
			t.Errorf("%d plots, want %d", len(shown), want)
		}
		for i, ok := range shown {
			if !ok {
				t.Errorf("plot %d is not shown as it should", i)
			}
		}
		if title := run(t, b, chromedp.Title()); !strings.Contains(title, "2026-11-23") {
			t.Errorf("title %q", title)
		}
		run(t, b, chromedp.EmulateViewport(360, 640))
		if wide := run(t, b, chromedp.Evaluate[int](`document.documentElement.scrollWidth`)); wide > 360 {
			t.Errorf("the page is %d wide on a phone", wide)
		}
		b.checkThemes(t)
		if complaints, requests := b.heard(page); len(complaints)+len(requests) != 0 {
			t.Errorf("the page complains: %q; asks for: %q", complaints, requests)
		}
	})
	t.Run("broken", func(t *testing.T) {
		b := newBrowser(t)
		page := pageFile(t, []byte(`<script>console.warn("a"); absent()</script><img src="absent.png">`))
		run(t, b, chromedp.Navigate(page))
		complaints, requests := b.heard(page)
		if len(complaints) < 3 || len(requests) != 1 {
			t.Errorf("of a page with three errors, one of them a request, heard %q and %q", complaints, requests)
		}
	})
}

// contrast is the least contrast of texts and plots' texts to the page (WCAG
// 2.2, success criterion 1.4.3 wants 4.5).
const contrast = `(() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const luminance = c => { const [r, g, b] = c.match(/[\d.]+/g).map(Number); return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const of = c => { const l = luminance(c); return (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05); };
  const html = Array.from(document.querySelectorAll("h1,p,li,a,td,th,caption,dt,.range")).map(e => of(getComputedStyle(e).color));
  const svg = Array.from(document.querySelectorAll("svg text")).map(e => of(getComputedStyle(e).fill));
  return Math.min(...html, ...svg);
})()`

func (b *browser) checkThemes(t *testing.T) {
	t.Helper()
	papers := make(map[string]string)
	for _, theme := range []string{"light", "dark"} {
		call(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		least := run(t, b, chromedp.Evaluate[float64](contrast))
		if least < 4.5 {
			t.Errorf("%s: contrast of some text is %.1f", theme, least)
		}
		papers[theme] = run(t, b, chromedp.Evaluate[string](`getComputedStyle(document.body).backgroundColor`))
	}
	if papers["light"] == papers["dark"] {
		t.Errorf("light and dark are the same: %v", papers)
	}
}
