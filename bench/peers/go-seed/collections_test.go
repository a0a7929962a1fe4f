package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"
)

// kept is a store that hands on every body it is given, and keeps its worker until the body is taken.
type kept chan []byte

func (k kept) Put(_ context.Context, payload Payload) error {
	body, err := payload.Body()
	k <- body
	return err
}

func start(t *testing.T, handler func(chan<- Job, int64) http.Handler) (*httptest.Server, kept) {
	t.Helper()
	queue, store := make(chan Job, 2), make(kept)
	NewDispatcher(4, queue, store).Run()
	server := httptest.NewServer(handler(queue, 1<<20))
	t.Cleanup(server.Close)
	return server, store
}

func post(t *testing.T, server *httptest.Server, body string) int {
	t.Helper()
	answer, err := http.Post(server.URL, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

func take(t *testing.T, store kept, count int) map[string]int {
	t.Helper()
	bodies := map[string]int{}
	for range count {
		select {
		case body := <-store:
			bodies[string(body)]++
		case <-time.After(10 * time.Second):
			t.Fatalf("%d payloads stored of %d", len(bodies), count)
		}
	}
	return bodies
}

// Every payload of a collection is stored once, as many as there are, over more than the queue and the workers hold.
func TestEveryPayloadIsStored(t *testing.T) {
	for name, handler := range map[string]func(chan<- Job, int64) http.Handler{"decoded": collections[Decoded], "raw": collections[Raw]} {
		t.Run(name, func(t *testing.T) {
			server, store := start(t, handler)
			var payloads []string
			for number := range 50 {
				payloads = append(payloads, fmt.Sprintf(`{"n":%d}`, number))
			}
			if status := post(t, server, `{"version":"1","token":"t","data":[`+strings.Join(payloads, ",")+`]}`); status != http.StatusOK {
				t.Fatalf("status %d", status)
			}
			bodies := take(t, store, len(payloads))
			for _, payload := range payloads {
				if bodies[payload]+bodies[payload+"\n"] != 1 {
					t.Errorf("%s is stored %d times", payload, bodies[payload])
				}
			}
		})
	}
}

// The raw form keeps the client's bytes, the decoded form what they mean.
func TestBytes(t *testing.T) {
	const payload = `{"b": 1.50,  "a":{"<": [ 1 ,null]}}`
	const body = `{"data":[` + payload + `]}`
	server, store := start(t, collections[Raw])
	post(t, server, body)
	if bodies := take(t, store, 1); bodies[payload] != 1 {
		t.Errorf("stored %v", bodies)
	}
	server, store = start(t, collections[Decoded])
	post(t, server, body)
	var sent, stored any
	for encoded := range take(t, store, 1) {
		if err := json.Unmarshal([]byte(encoded), &stored); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.Unmarshal([]byte(payload), &sent); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(sent, stored) {
		t.Errorf("sent %v, stored %v", sent, stored)
	}
}

// What is no collection, or no POST, is refused, and nothing of it is stored.
func TestRefusals(t *testing.T) {
	server, store := start(t, collections[Decoded])
	if status := post(t, server, `{"data":[{"n":1},`); status != http.StatusBadRequest {
		t.Errorf("status %d for half a collection", status)
	}
	if status := post(t, server, `{"data":[{"n":"`+strings.Repeat("x", 2<<20)+`"}]}`); status != http.StatusBadRequest {
		t.Errorf("status %d for more than the limit", status)
	}
	answer, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("status %d for a GET", answer.StatusCode)
	}
	if len(store) != 0 {
		t.Errorf("%d payloads stored", len(store))
	}
}
