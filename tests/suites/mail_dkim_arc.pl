# Validates the ARC chains of messages with Debian's Mail::DKIM. Each argument is the port of a DNS server at 127.0.0.1 and a file: PORT:FILE.
use strict;
use warnings;
use Mail::DKIM::ARC::Verifier;
use Mail::DKIM::DNS;
use Net::DNS::Resolver;

for (@ARGV) {
    my ($port, $file) = split /:/, $_, 2;
    Mail::DKIM::DNS::resolver(
        Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, retry => 1, udp_timeout => 2, tcp_timeout => 2));
    my $verifier = Mail::DKIM::ARC::Verifier->new(Strict => 1);
    open my $message, '<:raw', $file or die;
    local $/ = "\r\n";
    while (my $line = <$message>) { $verifier->PRINT($line) }
    $verifier->CLOSE;
    print $verifier->result, "\n";
}
