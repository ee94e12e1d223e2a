// Loads a table of `ipvsadm -S` lines with github.com/moby/ipvs, the library
// that kube-proxy and Docker use for IPVS. Prints how many seconds the
// library's calls took.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moby/ipvs"
	"golang.org/x/sys/unix"
)

// One line of the table: a service, or a destination of a service.
type entry struct {
	service     ipvs.Service
	destination *ipvs.Destination
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: moby-load FILE")
	}
	entries, err := read(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	kernel, err := ipvs.New("")
	if err != nil {
		log.Fatal(err)
	}
	start := time.Now()
	for i := range entries {
		entry := &entries[i]
		if entry.destination == nil {
			err = kernel.NewService(&entry.service)
		} else {
			err = kernel.NewDestination(&entry.service, entry.destination)
		}
		if err != nil {
			log.Fatalf("line %d: %v", i+1, err)
		}
	}
	fmt.Println(time.Since(start).Seconds())
}

func read(path string) ([]entry, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var entries []entry
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		entry, err := parse(strings.Fields(lines.Text()))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		entries = append(entries, entry)
	}
	return entries, lines.Err()
}

// Parses one line of the table, which has only options that the benchmark uses.
func parse(words []string) (entry, error) {
	found := entry{service: ipvs.Service{
		AddressFamily: unix.AF_INET,
		Netmask:       0xffffffff,
	}}
	server := ipvs.Destination{AddressFamily: unix.AF_INET}
	for len(words) > 0 {
		option := words[0]
		words = words[1:]
		switch option {
		case "-A":
			continue
		case "-a":
			found.destination = &server
			continue
		case "-m":
			server.ConnectionFlags = ipvs.ConnectionFlagMasq
			continue
		}
		if len(words) == 0 {
			return found, fmt.Errorf("%s has no value", option)
		}
		value := words[0]
		words = words[1:]
		switch option {
		case "-t":
			address, err := netip.ParseAddrPort(value)
			if err != nil {
				return found, err
			}
			found.service.Protocol = unix.IPPROTO_TCP
			found.service.Address = address.Addr().AsSlice()
			found.service.Port = address.Port()
		case "-r":
			address, err := netip.ParseAddrPort(value)
			if err != nil {
				return found, err
			}
			server.Address = address.Addr().AsSlice()
			server.Port = address.Port()
		case "-s":
			found.service.SchedName = value
		case "-w":
			weight, err := strconv.Atoi(value)
			if err != nil {
				return found, err
			}
			server.Weight = weight
		default:
			return found, fmt.Errorf("%s is not known here", option)
		}
	}
	return found, nil
}
