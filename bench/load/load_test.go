package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"
)

type envelope struct {
	Version, Token string
	Data           []json.RawMessage
}

// receiver is a server that counts what it got; `answer` may break its answers.
type receiver struct {
	sync.Mutex
	sum      uint64
	distinct map[string]bool
	sizes    map[int]int
	calls    int
	answer   func(call int, count int) (int, string)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, _ := io.ReadAll(request.Body)
	var got envelope
	if err := json.Unmarshal(body, &got); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Lock()
	r.calls++
	for _, payload := range got.Data {
		r.sum += fingerprint(payload)
		r.distinct[string(payload)] = true
		r.sizes[len(payload)]++
	}
	status, text := r.answer(r.calls, len(got.Data))
	r.Unlock()
	w.WriteHeader(status)
	io.WriteString(w, text)
}

func counted(_, count int) (int, string) { return 200, fmt.Sprintf(`{"accepted":%d,"ids":[]}`, count) }

func posted(t *testing.T, p plan, answer func(int, int) (int, string)) (*receiver, *report) {
	t.Helper()
	received := &receiver{distinct: map[string]bool{}, sizes: map[int]int{}, answer: answer}
	server := httptest.NewServer(received)
	t.Cleanup(server.Close)
	p.address = netip.MustParseAddrPort(server.Listener.Addr().String())
	p.path, p.token, p.deadline, p.seed = "/v1/collections", "t", 20*time.Second, 7
	got, err := drive(p)
	if err != nil {
		t.Fatal(err)
	}
	return received, got
}

func TestEveryPayloadIsDistinctAndItsBytesAreInTheChecksum(t *testing.T) {
	for _, p := range []plan{
		{connections: 4, requests: 300, payloads: 1, bytes: 1024, ids: true},
		{connections: 4, requests: 30, payloads: 20, bytes: 200, ids: true},
		{connections: 2, requests: 6, payloads: 500, bytes: 1024, ids: true},
		{connections: 4, requests: 200, payloads: 1, bytes: 1024, rate: 2000, ids: true},
	} {
		received, got := posted(t, p, counted)
		sent := p.requests * p.payloads
		if got.Payloads != sent || len(got.Errors) != 0 {
			t.Fatalf("%+v", got)
		}
		if len(received.distinct) != sent || received.sizes[p.bytes] != sent {
			t.Fatalf("%d distinct payloads of %d, sizes %v", len(received.distinct), sent, received.sizes)
		}
		if got.Checksum != strconv.FormatUint(received.sum, 16) {
			t.Fatalf("checksum %s, received %x", got.Checksum, received.sum)
		}
	}
}

func TestWhatIsNotAcknowledgedIsAnErrorAndNotInTheCount(t *testing.T) {
	_, got := posted(t, plan{connections: 3, requests: 100, payloads: 2, bytes: 200, ids: true}, func(call, count int) (int, string) {
		switch {
		case call%10 == 0:
			return 503, "{}"
		case call%10 == 1:
			return 200, `{"accepted":1}`
		default:
			return counted(call, count)
		}
	})
	if got.Requests != 80 || got.Payloads != 160 || got.Errors["status 503"] != 10 || got.Errors["accepted 1 of 2"] != 10 {
		t.Fatalf("%+v", got)
	}
}

func TestARequestThatWaitsForAConnectionCountsFromWhenItWasDue(t *testing.T) {
	_, got := posted(t, plan{connections: 1, requests: 100, payloads: 1, bytes: 200, rate: 1000, ids: true}, func(call, count int) (int, string) {
		if call == 1 {
			time.Sleep(300 * time.Millisecond) // the server's, a lower bound: no machine is too slow for this test
		}
		return counted(call, count)
	})
	if median := got.LatencyMs["p50"].(float64); median < 150 {
		t.Fatalf("a median of %f ms: the 99 requests behind the first were due 200 to 300 ms before they could leave", median)
	}
}

func TestTelemetryHas25FieldsAndItsSize(t *testing.T) {
	for _, size := range []int{1024, 16 << 10} {
		text, err := payloadOf(size)
		if err != nil || len(text) != size {
			t.Fatal(err, len(text))
		}
		w, err := newWire(plan{payloads: 1, bytes: size})
		if err != nil {
			t.Fatal(err)
		}
		w.next(1)
		var value any
		if err := json.Unmarshal(w.payloads[0], &value); err != nil {
			t.Fatal(err)
		}
		if count := leaves(value); count != 25 {
			t.Fatalf("%d fields", count)
		}
	}
	if _, err := payloadOf(50); err == nil {
		t.Fatal("a payload of 50 bytes")
	}
}

func leaves(value any) int {
	object, ok := value.(map[string]any)
	if !ok {
		return 1
	}
	count := 0
	for _, inner := range object {
		count += leaves(inner)
	}
	return count
}

func TestAnswersArriveInAnyPieces(t *testing.T) {
	whole := []byte("HTTP/1.1 200 OK\r\ncontent-length: 14\r\nconnection: close\r\n\r\n{\"accepted\":3}")
	for cut := range whole {
		if _, complete, err := parse(whole[:cut]); complete || err != nil {
			t.Fatalf("complete after %d bytes: %v", cut, err)
		}
	}
	got, complete, err := parse(whole)
	if !complete || err != nil || got != (answer{status: 200, accepted: 3, closes: true}) {
		t.Fatal(got, complete, err)
	}
	chunked := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
	if got, complete, _ := parse(chunked); !complete || got.accepted != -1 {
		t.Fatal(got, complete)
	}
	if _, complete, _ := parse(chunked[:len(chunked)-5]); complete {
		t.Fatal("complete before its last chunk")
	}
	if _, _, err := parse(bytes.Join([][]byte{whole, whole}, nil)); err == nil {
		t.Fatal("two answers to one request")
	}
}

func TestQuantilesAreWithinAPercent(t *testing.T) {
	var h histogram
	for value := int64(1); value <= 1_000_000; value++ {
		h.add(value)
	}
	for _, share := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		got, want := float64(h.quantile(share)), share*1_000_000
		if got < want || got > want*1.01+1 {
			t.Errorf("quantile %f is %f", share, got)
		}
	}
}
