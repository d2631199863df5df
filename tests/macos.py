"""What tools of macOS print, in the format of macOS 14: put together from their sources and from what others published.

No Mac was at hand to record it on.
"""

from __future__ import annotations

# ps -axwwo pid=,ppid=,comm=, from a rank of Homebrew's Open MPI 5 to launchd; {pid} and {ppid} are this process and its
# parent. comm is how a program was called, and of other users only a name in parentheses.
PS = """\
    1     0 /sbin/launchd
  103     1 /usr/libexec/logd
  371     1 (_windowserver)
  612     1 /System/Applications/Utilities/Terminal.app/Contents/MacOS/Terminal
  640   612 (login)
  641   640 -zsh
  733     1 /Applications/Google Chrome.app/Contents/MacOS/Google Chrome
 9120   641 /opt/homebrew/Cellar/open-mpi/5.0.8/bin/prterun
{ppid:5d}  9120 python3
{pid:5d} {ppid:5d} /opt/homebrew/Frameworks/Python.framework/Versions/3.13/Resources/Python.app/Contents/MacOS/Python
 9131  9120 python3
 9140  9131 <defunct>
"""

# ifconfig -a: Wi-Fi, an Ethernet adapter without a cable, two Macs on a Thunderbolt cable, a virtual machine, a VPN
IFCONFIG = """\
lo0: flags=8049<UP,LOOPBACK,RUNNING,MULTICAST> mtu 16384
\toptions=1203<RXCSUM,TXCSUM,TXSTATUS,SW_TIMESTAMP>
\tinet 127.0.0.1 netmask 0xff000000
\tinet6 ::1 prefixlen 128
\tinet6 fe80::1%lo0 prefixlen 64 scopeid 0x1
\tnd6 options=201<PERFORMNUD,DAD>
gif0: flags=8010<POINTOPOINT,MULTICAST> mtu 1280
stf0: flags=0<> mtu 1280
anpi0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\toptions=400<CHANNEL_IO>
\tether 4e:9b:1c:00:00:01
\tmedia: none
\tstatus: inactive
en0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\toptions=6460<TSO4,TSO6,CHANNEL_IO,PARTIAL_CSUM,ZEROINVERT_CSUM>
\tether 3c:06:30:00:00:02
\tinet6 fe80::1c0a:5a9d:f3b1:7a2e%en0 prefixlen 64 secured scopeid 0xf
\tinet 192.168.178.23 netmask 0xffffff00 broadcast 192.168.178.255
\tnd6 options=201<PERFORMNUD,DAD>
\tmedia: autoselect
\tstatus: active
en1: flags=8963<UP,BROADCAST,SMART,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1500
\toptions=460<TSO4,TSO6,CHANNEL_IO>
\tether 36:7d:da:00:00:03
\tmedia: autoselect <full-duplex>
\tstatus: active
en7: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tether 00:e0:4c:00:00:04
\tinet 10.20.0.5 netmask 0xffff0000 broadcast 10.20.255.255
\tmedia: autoselect (none)
\tstatus: inactive
en8: flags=8822<BROADCAST,SMART,SIMPLEX,MULTICAST> mtu 1500
\tether 00:e0:4c:00:00:05
\tinet 10.30.0.5 netmask 0xffff0000 broadcast 10.30.255.255
\tstatus: inactive
bridge0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\toptions=63<RXCSUM,TXCSUM,TSO4,TSO6>
\tether 36:7d:da:00:00:03
\tinet 10.0.0.1 netmask 0xfffffffc broadcast 10.0.0.3
\tConfiguration:
\t\tid 0:0:0:0:0:0 priority 0 hellotime 0 fwddelay 0
\t\tmaxage 0 holdcnt 0 proto stp maxaddr 100 timeout 1200
\t\troot id 0:0:0:0:0:0 priority 0 ifcost 0 port 0
\t\tipfilter disabled flags 0x0
\tmember: en1 flags=3<LEARNING,DISCOVER>
\t        ifmaxaddr 0 port 10 priority 0 path cost 0
\tnd6 options=201<PERFORMNUD,DAD>
\tmedia: <unknown type>
\tstatus: active
ap1: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tether 3e:06:30:00:00:06
\tmedia: autoselect (none)
\tstatus: inactive
awdl0: flags=8943<UP,BROADCAST,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1500
\tether 8a:60:94:00:00:07
\tinet6 fe80::8860:94ff:fe00:7%awdl0 prefixlen 64 scopeid 0x11
\tmedia: autoselect
\tstatus: active
llw0: flags=8863<UP,BROADCAST,SMART,RUNNING,SIMPLEX,MULTICAST> mtu 1500
\tether 8a:60:94:00:00:07
utun0: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1380
\tinet6 fe80::a0a0:2a7c:9a4c:1%utun0 prefixlen 64 scopeid 0x13
\tnd6 options=201<PERFORMNUD,DAD>
utun4: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1280
\tinet 100.100.7.7 --> 100.100.7.7 netmask 0xffffffff
vmenet0: flags=8963<UP,BROADCAST,SMART,RUNNING,PROMISC,SIMPLEX,MULTICAST> mtu 1500
\tether 9a:82:76:00:00:08
\tmedia: autoselect
\tstatus: active
bridge100: flags=8a63<UP,BROADCAST,SMART,RUNNING,ALLMULTI,SIMPLEX,MULTICAST> mtu 1500
\toptions=3<RXCSUM,TXCSUM>
\tether 3e:06:30:00:00:09
\tinet 192.168.64.1 netmask 0xffffff00 broadcast 192.168.64.255
\tConfiguration:
\t\tid 0:0:0:0:0:0 priority 0 hellotime 0 fwddelay 0
\tmember: vmenet0 flags=3<LEARNING,DISCOVER>
\t        ifmaxaddr 0 port 22 priority 0 path cost 0
\tmedia: autoselect
\tstatus: active
"""

# netstat -ibn
NETSTAT = """\
Name       Mtu   Network       Address            Ipkts Ierrs     Ibytes    Opkts Oerrs     Obytes  Coll
lo0        16384 <Link#1>                        320751     0   96482143   320751     0   96482143     0
lo0        16384 127           127.0.0.1         320751     -   96482143   320751     -   96482143     -
lo0        16384 ::1/128     ::1                 320751     -   96482143   320751     -   96482143     -
gif0*      1280  <Link#2>                             0     0          0        0     0          0     0
en0        1500  <Link#15>   3c:06:30:00:00:02 41230911     0 5523412345 20391177     0 2147483999     0
en0        1500  192.168.178   192.168.178.23  41230911     - 5523412345 20391177     - 2147483999     -
en8*       1500  <Link#18>   00:e0:4c:00:00:05        0     0          0        0     0          0     0
bridge0    1500  <Link#16>   36:7d:da:00:00:03  1019112     0 1484239811   998712     0 1412398734     0
utun4      1280  <Link#21>                          912     0     118234     1044     0     227631     0
"""
