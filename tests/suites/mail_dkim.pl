# Verifies the messages named on the command line with Debian's Mail::DKIM, asking the DNS server at 127.0.0.1:PORT (first argument).
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::DNS;
use Net::DNS::Resolver;

my $port = shift @ARGV;
Mail::DKIM::DNS::resolver(
    Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, retry => 1, udp_timeout => 2, tcp_timeout => 2));
for my $file (@ARGV) {
    my $verifier = Mail::DKIM::Verifier->new();
    open my $message, '<:raw', $file or die;
    local $/ = "\r\n";
    while (my $line = <$message>) { $verifier->PRINT($line) }
    $verifier->CLOSE;
    print join(',', map { $_->result } $verifier->signatures), "\n";
}
